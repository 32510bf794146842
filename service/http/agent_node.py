"""A node without an engine process or a store: the real agents on a scripted engine. For tests, and to try a client.

`service.http.fakes` stops at the HTTP layer's own ports; here a request goes through fair queue, prompts, language
contract and journal too, and its tokens are charged.
"""

from collections.abc import Callable, Sequence

from agent.chat import ChatAgent
from agent.config import AgentConfig, TenantSettings
from agent.contract import LanguageContract
from agent.fakes import CharEncoder, FakeEngine, FakeRanker, MemoryJournal
from agent.language import FastTextDetector
from agent.ports import GenerateRequest
from agent.prompt import PromptLibrary
from agent.repairer import Repairer
from agent.writer import ContentAgent, TenantLanguages
from rewards.config import FeedbackConfig, RewardsConfig
from rewards.panel import build_panel
from rewards.quarantine import ChosenText
from service.config import JobsConfig
from service.fair_engine import FairEngine
from service.fair_queue import FairQueue, Share
from service.feedback.assembly import NodeFeedback
from service.feedback.desk import FeedbackDesk
from service.feedback.fakes import JournalledEpisodes, MemoryFeedback
from service.feedback.inspection import Inspector
from service.feedback.pairs import FeedbackPairs
from service.http.content_executor import ContentExecutor
from service.http.fake_canaries import canaries_of
from service.http.fake_tuning import BASE_POLICY, EPOCH, FakePolicies, FakeTuning
from service.http.fakes import READY, registry_of
from service.http.ports import Health
from service.jobs.desk import JobDesk
from service.jobs.fakes import MemoryJobStore, RememberedEvents
from service.reward_models.fakes import FakeRewardModels
from service.tenancy.audit import MemoryAudit
from service.tenancy.limits import Limiter
from service.tenants import Tenants
from service.webhooks.fakes import fake_webhooks
from trainer.records import PolicyRecord

_NUM_SLOTS = 64


class AgentNode:
    """Answers what ``says`` says, or ``reply`` where that is set, ``pause_s`` from word to word."""

    def __init__(
        self,
        tenants: Sequence[TenantSettings],
        *,
        says: str = "This is the new bell.",
        agent: AgentConfig = AgentConfig(repair="off"),  # noqa: B008 - frozen
    ) -> None:
        """Repairs are off by default: a script says the same again, and one brief is then one generation."""
        self.says = says
        self.reply: Callable[[GenerateRequest], str] | None = None
        self.engine = FakeEngine(self._say, version=3)
        self.journal = MemoryJournal()
        self.failures: list[tuple[str, Exception]] = []
        self.tenancy, self.limits, self.audit = registry_of(tenants), Limiter(), MemoryAudit()
        engine = FairEngine(self.engine, FairQueue(lambda: _NUM_SLOTS, lambda _: Share()), self.limits.charge)
        contract, encoder, languages = LanguageContract(FastTextDetector()), CharEncoder(), TenantLanguages(tenants)
        prompts = PromptLibrary.load()
        repairer = Repairer.of(engine, encoder, prompts, agent)
        self.content = ContentAgent(
            engine,
            encoder,
            prompts,
            contract,
            FakeRanker(),
            self.journal,
            languages,
            lambda tenant, error: self.failures.append((tenant, error)),
            repairer,
        )
        self.chat = ChatAgent(engine, encoder, contract, self.content.keeper, languages, repairer)
        self.tuning = FakeTuning()
        tuned = PolicyRecord(3, "adapter", 0, "run_1", EPOCH, None, None, None)
        self.policies = FakePolicies({0: BASE_POLICY, 3: tuned}, active_version=3)
        self.reward_models = FakeRewardModels()
        self.canaries, self.tenant_policies, pins = canaries_of(self.policies)
        self.tenant_policies.use_tenants(tenants)
        self.tenancy.hold_pins_to(pins)
        executor = ContentExecutor(self.content, Tenants.of(tenants), agent)
        jobs, kept, episodes = MemoryJobStore(), MemoryFeedback(), JournalledEpisodes(self.journal)
        desk = FeedbackDesk(kept, episodes, jobs)
        flaw = ChosenText(contract, lambda tenant, language: languages.find(tenant, language).brand_terms)
        pairs = FeedbackPairs(kept, episodes, FeedbackConfig(), flaw, held_out_share=0.0)
        panel = build_panel(RewardsConfig(), tenants, contract)
        self.feedback = NodeFeedback(desk, pairs, Inspector(episodes, desk, panel))
        self.jobs = JobDesk(jobs, executor, RememberedEvents(), JobsConfig(), sole_user=True)
        self.webhooks = fake_webhooks()

    async def health(self) -> Health:
        """See NodePorts.health."""
        return READY

    def _say(self, request: GenerateRequest) -> str:
        return self.says if self.reply is None else self.reply(request)
