"""Fakes of `service.http.ports`: a node without an engine, store or trainer. They keep what they were asked. Those of
tuning are in `service.http.fake_tuning`.

`served` puts an app of fakes behind a real server, for clients that need a socket.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.types import ASGIApp

from agent.alternatives import Alternatives
from agent.brief import Brief, Kind
from agent.chat import ChatReply, Choice, Dialogue
from agent.commission import Commission
from agent.completion import GenerationTiming, Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.episode import Reply
from agent.ports import Delta, Listener
from agent.verdict import LanguageVerdict, SentenceVerdict, Verdict
from rewards.config import RewardsConfig
from rewards.fakes import FakePanel, FakePreferencePairs
from service.canary.canaries import Canaries
from service.config import NodeConfig
from service.feedback.assembly import NodeFeedback
from service.feedback.desk import FeedbackDesk
from service.feedback.fakes import MemoryEpisodes, MemoryFeedback
from service.feedback.inspection import Inspector
from service.http.content_executor import ContentExecutor, TenantLookup
from service.http.fake_canaries import canaries_of
from service.http.fake_tuning import EPOCH, FakePolicies, FakeTuning
from service.http.ports import Health
from service.jobs.desk import JobDesk
from service.jobs.fakes import MemoryJobStore, RememberedEvents
from service.jobs.ports import JobEvents, JobStore
from service.pins import PolicyPins
from service.reward_models.fakes import FakeRewardModels
from service.secrets import hash_key
from service.tenancy.audit import MemoryAudit
from service.tenancy.caller import Caller
from service.tenancy.fakes import MemoryTenantStore
from service.tenancy.limits import Limiter
from service.tenancy.record import ALL_SCOPES, Scope, seeded_key_id
from service.tenancy.registry import TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenant_policies import TenantPolicies
from service.tenants import Tenants, seeded
from service.webhooks.assembly import Webhooks
from service.webhooks.fakes import fake_webhooks

READY = Health(ready=True, engine="ready", store="ready", tuning="idle", policy_version=3)


@dataclass
class FakeContent:
    """Answers with `text` after `delay_s`, or raises `error`. Who listens hears the text at once."""

    text: str = "Guten Tag."
    error: Exception | None = None
    delay_s: float = 0.0
    policy_version: int = 3
    timing: GenerationTiming | None = None
    calls: list[tuple[Brief, Sampling, str]] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    waits_s: list[float | None] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, commission: Commission) -> Reply:
        self.calls.append((commission.brief, commission.sampling, commission.request_id))
        self.waits_s.append(commission.wait_s)
        self.alternatives.append(commission.alternatives)
        self.started.set()
        if commission.listener is not None and self.error is None:
            commission.listener(Delta(self.text))
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error
        return self._reply(commission.brief, commission.request_id, commission.alternatives.n)

    def _reply(self, brief: Brief, request_id: str, num_texts: int) -> Reply:
        others = tuple(f"{self.text} {number}" for number in range(2, num_texts + 1))
        sentence = SentenceVerdict(0, len(self.text), Verdict.PASS, brief.language, 0.98)
        return Reply(
            request_id=request_id,
            text=self.text,
            language=brief.language,
            verdict=LanguageVerdict(brief.language, Verdict.PASS, 1.0, (sentence,)),
            policy_version=self.policy_version,
            finish_reason="stop",
            prompt_tokens=40,
            completion_tokens=5,
            duration_ms=12.5,
            timing=self.timing,
            alternatives=others if num_texts > 1 else None,
        )


@dataclass
class FakeChat:
    """Answers with `text`, or raises `error`; `timing` and verdicts are those of `FakeContent`."""

    text: str = "Guten Tag."
    error: Exception | None = None
    delay_s: float = 0.0
    calls: list[tuple[Dialogue, Sampling, int]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(
        self,
        dialogue: Dialogue,
        sampling: Sampling,
        *,
        request_id: str,
        num_choices: int = 1,
        listeners: Sequence[Listener] = (),
        wait_s: float | None = None,
    ) -> ChatReply:
        self.calls.append((dialogue, sampling, num_choices))
        content = FakeContent(text=self.text, error=self.error, delay_s=self.delay_s, cancelled=self.cancelled)
        brief = Brief(dialogue.tenant, Kind.CHAT, dialogue.languages[0], instructions=dialogue.turns[-1].content)
        listener = listeners[0] if listeners else None
        reply = await content.write(Commission(brief, sampling, request_id=request_id, listener=listener))
        return ChatReply(request_id, (Choice(reply, ()),) * num_choices)


FAKE_TENANT = TenantSettings(
    id="acme",
    languages={code: LanguageSettings() for code in "ar cs de en es fr hi it ja ko nl pl pt sv tr uk zh".split()},
)


class AnyTenant:
    """Every tenant that is asked for, with the languages of the prompts."""

    def get(self, tenant: str) -> TenantSettings | None:
        """See TenantLookup."""
        return FAKE_TENANT.model_copy(update={"id": tenant})


def registry_of(settings: Sequence[TenantSettings]) -> TenantRegistry:
    """The real registry, with these tenants in a store in memory; every language of the detector's is known."""
    records = [seeded(tenant, EPOCH) for tenant in settings]
    rules = TenantRules(labels={"de", "en", "fr", "pl"}, parts=set(RewardsConfig().weights))
    return TenantRegistry(MemoryTenantStore(records), Tenants(records), rules)


@dataclass
class FakeNode:
    """A node of fakes; its jobs are real ones, in memory unless `job_store` says otherwise."""

    content: FakeContent = field(default_factory=FakeContent)
    chat: FakeChat = field(default_factory=FakeChat)
    tuning: FakeTuning = field(default_factory=FakeTuning)
    policies: FakePolicies = field(default_factory=FakePolicies)
    reward_models: FakeRewardModels = field(default_factory=FakeRewardModels)
    webhooks: Webhooks = field(default_factory=fake_webhooks)
    state: Health = READY
    tenancy: TenantRegistry = field(default_factory=lambda: registry_of(()))
    limits: Limiter = field(default_factory=Limiter)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    tenants: TenantLookup = field(default_factory=AnyTenant)
    config: NodeConfig = field(default_factory=NodeConfig)
    job_store: JobStore = field(default_factory=MemoryJobStore)
    events: JobEvents = field(default_factory=RememberedEvents)
    kept_feedback: MemoryFeedback = field(default_factory=MemoryFeedback)
    episodes: MemoryEpisodes = field(default_factory=MemoryEpisodes)
    pairs: FakePreferencePairs = field(default_factory=FakePreferencePairs)
    panel: FakePanel = field(default_factory=FakePanel)
    jobs: JobDesk = field(init=False)
    feedback: NodeFeedback = field(init=False)
    canaries: Canaries = field(init=False)
    tenant_policies: TenantPolicies = field(init=False)
    pins: PolicyPins = field(init=False)

    def __post_init__(self) -> None:
        desk = FeedbackDesk(self.kept_feedback, self.episodes, self.job_store)
        self.feedback = NodeFeedback(desk, self.pairs, Inspector(self.episodes, desk, self.panel))
        self.canaries, self.tenant_policies, self.pins = canaries_of(self.policies)
        self.tenant_policies.use_tenants([record.settings for record in self.tenancy.list()])
        self.tenancy.hold_pins_to(self.pins)
        executor = ContentExecutor(self.content, self.tenants, self.config.agent)
        self.jobs = JobDesk(
            self.job_store,
            executor,
            self.events,
            self.config.jobs,
            sole_user=True,
            occupy=lambda order: self.limits.occupy(order.tenant, order.key_id),
        )

    async def health(self) -> Health:
        return self.state


@dataclass
class FakeAuthenticator:
    """Keys in plain text."""

    tenants: Mapping[str, TenantSettings]
    admin_key: str = "admin-key"
    scopes: Mapping[str, Sequence[Scope]] = field(default_factory=dict)
    """By key; every scope where none are named."""

    def caller(self, key: str) -> Caller | None:
        tenant = self.tenants.get(key)
        if tenant is None:
            return None
        return Caller(tenant, seeded_key_id(hash_key(key)), frozenset(self.scopes.get(key, ALL_SCOPES)))

    def is_admin(self, key: str) -> bool:
        return key == self.admin_key

    def tenant_of_id(self, tenant: str) -> TenantSettings | None:
        return next((item for item in self.tenants.values() if item.id == tenant), None)


@dataclass(frozen=True, slots=True)
class Observation:
    """One counted request."""

    method: str
    route: str
    status: int
    duration_s: float


@dataclass
class FakeMetrics:
    """Keeps every observation."""

    observations: list[Observation] = field(default_factory=list)

    def observe_request(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        self.observations.append(Observation(method, route, status, duration_s))

    def render(self) -> str:
        return f"# TYPE coloq_requests counter\ncoloq_requests_total {len(self.observations)}\n"


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve `app` on a free loopback port, in a thread of its own; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
