"""A node: everything of one process pair, wired together.

    data folder ─ store ─ journal, ledger, jobs
    engine process ─ learner ─ adapter slots ─ publisher
    content agent · panel · tuning loop and runs

This module imports vLLM (through service.engine): set the environment first (service.engine_environment).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog

from agent.chat import ChatAgent
from agent.contract import LanguageContract
from agent.errors import EngineDead, StoreError, TrainerFailed
from agent.language import FastTextDetector
from agent.prompt import PromptLibrary
from agent.writer import ContentAgent
from rewards.panel import Panel, build_panel
from rewards.ranker import PanelRanker
from rewards.second_opinion import LangdetectDetector
from service.config import NodeConfig
from service.config_file import check_languages, reward_parts
from service.controller import Controller
from service.data_dir import locked_data_dir
from service.encoder import ChatEncoder
from service.engine import WORKER, VllmEngine
from service.engine_trainer import EngineTrainer
from service.fair_engine import FairEngine
from service.fair_queue import FairQueue
from service.http.content_executor import ContentExecutor
from service.http.job_webhooks import JobWebhooks
from service.http.keys import NodeKeys
from service.http.ports import Health
from service.jobs.announcer import LoggedEvents, Subscribers
from service.jobs.desk import JobDesk
from service.jobs.store import RedisJobStore
from service.journal import RedisJournal
from service.ledger import Ledger
from service.memory_plan import MemoryPlan, compare
from service.metering import MeteredChat, MeteredContent, MeteredJobs, NodeMetrics, count_run, watch_journal
from service.pacing import LiveRequests, Pacing, ScoringGate
from service.secrets import AdminKey, Secrets, admin_key
from service.store import Store, open_store
from service.supervised_engine import SupervisedEngine
from service.tasks import running
from service.telemetry import Metrics
from service.tenancy.audit import RedisAudit
from service.tenancy.limits import Limiter
from service.tenancy.registry import TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenancy.store import RedisTenantStore
from service.tenancy.usage import DailyUsage, RedisUsageStore
from service.tenants import Tenants
from service.versions import AdapterVersions, LiveVersions
from service.webhooks.announcements import Announcements
from service.webhooks.assembly import Webhooks, open_webhooks
from trainer.adapters import AdapterSlots
from trainer.checkpoint import Checkpoints
from trainer.claim_log import ClaimLog
from trainer.evaluation import Evaluator
from trainer.footprint import num_adapter_slots
from trainer.live import LiveWeights
from trainer.loop import TuningLoop
from trainer.parity import ParityProbe
from trainer.plan import RunPlan
from trainer.policy_folder import newest_version, policy_folder
from trainer.promotion import promotions
from trainer.publication import Publisher
from trainer.records import RunRequest, RunState, RunStatus
from trainer.rollout import RolloutSampler
from trainer.run_records import RunRecords
from trainer.runs import TuningRuns

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Node:
    """A running node; provides service.http.ports.NodePorts."""

    config: NodeConfig
    store: Store
    engine: SupervisedEngine
    journal: RedisJournal
    content: MeteredContent
    chat: MeteredChat
    tuning: TuningRuns
    pacing: Pacing
    policies: Publisher
    jobs: JobDesk
    metrics: NodeMetrics
    keys: NodeKeys
    admin: AdminKey
    tenancy: TenantRegistry
    limits: Limiter
    usage: DailyUsage
    audit: RedisAudit
    webhooks: Webhooks

    @property
    def gave_up(self) -> "asyncio.Future[str]":
        """Resolved with the reason when the engine died too often to be started again."""
        return self.engine.gave_up

    async def health(self) -> Health:
        """Readiness of each part."""
        store = "ready"
        try:
            await self.store.ping()
        except StoreError:
            store = "unreachable"
        return Health(
            ready=self.engine.state == "ready" and not self.jobs.stopping,
            engine=self.engine.state,
            store=store,
            tuning=self.tuning.summary,
            policy_version=self.engine.active_version,
        )


@asynccontextmanager
async def open_node(
    config: NodeConfig, model: str, secrets: Secrets, plan: MemoryPlan, *, worker: str = WORKER
) -> AsyncIterator[Node]:
    """Start every part of a node, and stop them in reverse order at the end of the block.

    Args:
        model: the folder or Hugging Face id behind ``config.engine.model``.
        plan: sizes the KV cache; service.serve has checked that it fits.

    Raises:
        InvalidConfig: a tenant's language that the detector cannot tell, or a reward that cannot be made.
        StoreError: the data folder is in use, or the store does not answer.
        ModelError: the engine could not load the model.
    """
    contract = LanguageContract(await asyncio.to_thread(FastTextDetector))
    check_languages(config, contract.labels)
    panel = build_panel(config.rewards, config.tenants, contract)
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(locked_data_dir(config.data_dir))
        admin = admin_key(data_dir, secrets.admin_key_hash)
        store = await stack.enter_async_context(open_store(config.store, data_dir, password=secrets.store_password))
        metrics = Metrics()
        live, gate = LiveRequests(metrics), ScoringGate()
        engine = SupervisedEngine(
            config.engine,
            _launcher(config, model, plan, worker),
            versions=LiveVersions() if config.tuning.method == "full" else AdapterVersions(),
            on_restart=metrics.engine_restarted,
            on_live=live.add,
        )
        stack.push_async_callback(engine.stop)
        webhooks = await stack.enter_async_context(open_webhooks(store, config.webhooks, metrics.webhook_attempted))
        announcements = Announcements(webhooks.deliveries, store, Ledger(store).active_version)
        stack.push_async_callback(announcements.close)
        parts = _Parts(config, model, data_dir, contract, panel, store, engine, metrics, live, gate, webhooks)
        node = await parts.assemble(admin, announcements)
        await engine.start(partial(_ready_for_traffic, node, EngineTrainer(engine), plan))
        stack.push_async_callback(node.content.agent.drain)
        await stack.enter_async_context(node.jobs.running())
        stack.push_async_callback(node.tuning.close)
        await stack.enter_async_context(running(node.tenancy.run(), name="tenants"))
        await stack.enter_async_context(running(node.usage.run(), name="usage"))
        await stack.enter_async_context(running(watch_journal(node.journal, metrics), name="journal"))
        await stack.enter_async_context(running(node.pacing.run(), name="pacing"))
        await stack.enter_async_context(running(announcements.watch_policy(), name="announcements"))
        yield node


async def _ready_for_traffic(node: Node, trainer: EngineTrainer, plan: MemoryPlan) -> None:
    """What a fresh engine needs before the first request: room and graphs for training, and the active policy.

    A model that cannot be trained is served all the same. The plan is logged beside what the device holds then.
    """
    run = RunPlan.of(RunRequest(), node.config.tuning, ())
    try:
        await trainer.prepare(
            run.learner,
            max_length=node.config.engine.max_model_len,
            reply_tokens=run.max_tokens,
            temperature=node.config.tuning.temperature,
        )
    except EngineDead:
        raise
    except TrainerFailed as error:
        log.error("training_not_prepared", reason=str(error))
    await node.policies.restore()
    await node.tuning.pick_up()
    for row in compare(plan, await node.engine.call("coloq_memory")):
        log.info(
            "memory_measured",
            part=row.name,
            planned_mib=row.predicted_bytes >> 20,
            measured_mib=row.measured_bytes >> 20,
            error=None if row.relative_error is None else round(row.relative_error, 3),
        )


def _launcher(config: NodeConfig, model: str, plan: MemoryPlan, worker: str) -> Callable[[], Awaitable[VllmEngine]]:
    return partial(
        VllmEngine.launch,
        model,
        config.engine,
        num_adapters=num_adapter_slots(config.tuning) if config.tuning.method == "adapter" else 0,
        adapter_rank=config.tuning.adapter.rank,
        target_modules=config.tuning.adapter.target_modules,
        kv_cache_bytes=plan.kv_cache_bytes,
        worker=worker,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a node is assembled from."""

    config: NodeConfig
    model: str
    data_dir: Path
    contract: LanguageContract
    panel: Panel
    store: Store
    engine: SupervisedEngine
    metrics: Metrics
    live: LiveRequests
    gate: ScoringGate
    webhooks: Webhooks

    async def assemble(self, admin: AdminKey, announcements: Announcements) -> Node:
        config, metrics = self.config, self.metrics
        tenants = Tenants()
        rules = TenantRules(self.contract.labels, reward_parts(config))
        tenancy = TenantRegistry(RedisTenantStore(self.store), tenants, rules)
        await tenancy.open(config.tenants, sole_user=self.store.embedded is not None)
        await self.webhooks.forget_unknown(lambda tenant: tenants.get(tenant) is not None)
        tenants.follow(self.panel.seat)
        usage = DailyUsage(RedisUsageStore(self.store))
        await usage.read(record.id for record in tenancy.list())
        limits = Limiter(usage)
        queue = FairQueue(lambda: self.engine.slots.total.num_seqs, tenants.share)
        policies_root = self.data_dir / "policies"
        ledger = Ledger(self.store)
        now = datetime.now(UTC)
        checkpoints = Checkpoints(self.data_dir / "runs")
        await ledger.begin(now, last_version=max(newest_version(policies_root), checkpoints.newest_version()))
        for stopped in await ledger.close_interrupted(now, "the node stopped during the run"):
            announcements.run_ended(stopped)
        checkpoints.keep_only(run.id for run in await ledger.runs() if run.state is RunState.INTERRUPTED)
        journal = RedisJournal(self.store, config.store, on_corrupt=metrics.journal_corrupt)
        encoder = await asyncio.to_thread(ChatEncoder.load, self.model)
        trainer = EngineTrainer(self.engine)
        placement = self._placement(trainer, policies_root)
        probe = ParityProbe(self.engine, trainer, encoder, max_mean=config.tuning.parity_mean)
        publisher = Publisher(trainer, placement, self.engine, ledger, probe, policies_root, config.engine.model)
        claims = ClaimLog(journal)
        loop = self._loop(journal, claims, ledger, placement, publisher)
        engine = FairEngine(self.engine, queue, limits.charge)
        agent = ContentAgent(
            engine,
            encoder,
            PromptLibrary.load(),
            self.contract,
            PanelRanker(self.panel),
            journal,
            tenants,
            partial(_journal_failed, metrics),
        )
        chat = ChatAgent(engine, encoder, self.contract, agent.keeper, tenants)
        tuning = TuningRuns(
            loop,
            ledger,
            config.tuning,
            tenants.languages,
            metrics.observe_step,
            partial(_run_ended, metrics, announcements),
            records=RunRecords(checkpoints, claims, config.engine.model),
        )
        tenants.follow(lambda _: tuning.use_languages(tenants.languages))
        pacing = Pacing(
            self.engine,
            Controller(config.slo),
            self.live,
            self.gate,
            metrics,
            is_tuning=lambda: tuning.summary == "running",
            num_queued=lambda: queue.num_waiting,
        )
        content = MeteredContent(agent, metrics)
        return Node(
            config=config,
            store=self.store,
            engine=self.engine,
            journal=journal,
            content=content,
            chat=MeteredChat(chat, metrics),
            tuning=tuning,
            pacing=pacing,
            policies=publisher,
            jobs=JobDesk(
                RedisJobStore(self.store, config.jobs),
                ContentExecutor(content, tenants, config.agent),
                # The one that may fail comes first: then all hear again, and nothing is counted twice.
                Subscribers(JobWebhooks(self.webhooks.deliveries), LoggedEvents(), MeteredJobs(metrics)),
                config.jobs,
                sole_user=self.store.embedded is not None,
            ),
            metrics=NodeMetrics(metrics, self.engine, queue),
            keys=NodeKeys(tenants, admin),
            admin=admin,
            tenancy=tenancy,
            limits=limits,
            usage=usage,
            audit=RedisAudit(self.store),
            webhooks=self.webhooks,
        )

    def _placement(self, trainer: EngineTrainer, root: Path) -> AdapterSlots | LiveWeights:
        folder_of = partial(policy_folder, root)
        if self.config.tuning.method == "full":
            return LiveWeights(trainer, self.engine, folder_of=folder_of)
        return AdapterSlots(trainer, self.engine, capacity=num_adapter_slots(self.config.tuning), folder_of=folder_of)

    def _loop(
        self,
        journal: RedisJournal,
        claims: ClaimLog,
        ledger: Ledger,
        placement: AdapterSlots | LiveWeights,
        publisher: Publisher,
    ) -> TuningLoop:
        sampler = RolloutSampler(self.engine)
        evaluator = Evaluator(
            journal=journal,
            sampler=sampler,
            panel=self.panel,
            admission=self.gate,
            second_opinion=LanguageContract(LangdetectDetector()),
            temperature=self.config.agent.temperature,
            num_prompts=self.config.tuning.gate.num_prompts,
            margin=self.config.tuning.gate.margin,
            min_determined=self.config.tuning.gate.min_determined,
        )
        return TuningLoop(
            journal=claims,
            sampler=sampler,
            panel=self.panel,
            trainer=publisher.trainer,
            ledger=ledger,
            start_promotion=promotions(placement, publisher, evaluator),
            admission=self.gate,
        )


def _journal_failed(metrics: Metrics, tenant: str, error: Exception) -> None:
    metrics.journal_failed(tenant)
    log.error("episode_not_journalled", tenant=tenant, reason=type(error).__name__)


def _run_ended(metrics: Metrics, announcements: Announcements, status: RunStatus) -> None:
    count_run(metrics, status)
    announcements.run_ended(status)
