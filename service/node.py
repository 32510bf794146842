"""A node: everything of one process pair, wired together.

    data folder ─ store ─ journal, ledger, jobs
    engine process ─ learner ─ adapter slots ─ publisher
    content agent · panel · tuning loop and runs

Its parts are made in service.assembly; here they start and stop. This module imports vLLM (through service.engine): set
the environment first (service.engine_environment).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from agent.errors import EngineDead, TrainerFailed
from service.assembly.canary import Trials, open_trials
from service.assembly.engine_room import EngineRoom, open_engine_room
from service.assembly.feedback import open_feedback
from service.assembly.ground import Ground
from service.assembly.judges import open_judges
from service.assembly.reward_models import open_reward_models
from service.assembly.serving import Serving, open_serving
from service.assembly.tenancy import Tenancy, open_tenancy
from service.assembly.tuning import Tuning, open_tuning
from service.canary.canaries import Canaries
from service.config import NodeConfig
from service.data_dir import locked_data_dir
from service.engine import WORKER
from service.feedback.assembly import NodeFeedback
from service.http.keys import NodeKeys
from service.http.ports import Health
from service.jobs.desk import JobDesk
from service.journal import RedisJournal
from service.ledger import Ledger
from service.memory_plan import MemoryPlan, compare
from service.metering import MeteredChat, MeteredContent, NodeMetrics, watch_journal
from service.pacing import Pacing
from service.reward_calibration import RewardCalibrator
from service.reward_models.desk import RewardModelDesk
from service.secrets import AdminKey, Secrets, admin_key
from service.store import Store, open_store
from service.supervised_engine import SupervisedEngine
from service.tasks import running
from service.telemetry import Metrics
from service.tenancy.audit import RedisAudit
from service.tenancy.limits import Limiter
from service.tenancy.registry import TenantRegistry
from service.tenancy.usage import DailyUsage
from service.tenant_policies import TenantPolicies
from service.webhooks.announcements import Announcements
from service.webhooks.assembly import Webhooks, open_webhooks
from trainer.plan import RunPlan
from trainer.publication import Publisher
from trainer.records import RunRequest
from trainer.runs import TuningRuns

log = structlog.get_logger(__name__)

_CHECKED_ON_GPU, _CHECKED_ON_CPU = 128, 6
"""Prompts of a fresh engine's check."""
_STORE_PROBE_S = 0.5
"""Who asks for readiness gives up after a second, mostly, and a node without its store still serves."""


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
    canaries: Canaries
    tenant_policies: TenantPolicies
    jobs: JobDesk
    metrics: NodeMetrics
    keys: NodeKeys
    admin: AdminKey
    tenancy: TenantRegistry
    limits: Limiter
    usage: DailyUsage
    audit: RedisAudit
    webhooks: Webhooks
    feedback: NodeFeedback
    reward_models: RewardModelDesk

    @property
    def gave_up(self) -> "asyncio.Future[str]":
        """Resolved with the reason when the engine died too often to be started again."""
        return self.engine.gave_up

    async def health(self) -> Health:
        """Readiness of each part."""
        store = "ready" if await self.store.answers(_STORE_PROBE_S) else "unreachable"
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
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(locked_data_dir(config.data_dir))
        admin = admin_key(data_dir, secrets.admin_key_hash)
        store = await stack.enter_async_context(open_store(config.store, data_dir, password=secrets.store_password))
        ground = Ground(config, data_dir, store, Ledger(store), Metrics())
        room = await open_engine_room(ground, model, plan, worker)
        stack.push_async_callback(room.engine.stop)
        judges = await stack.enter_async_context(open_judges(config, room.rewards.parts))
        webhooks = await stack.enter_async_context(
            open_webhooks(store, config.webhooks, ground.metrics.webhook_attempted)
        )
        announcements = Announcements(webhooks.deliveries, store, ground.ledger.active_version)
        ground.ledger.on_active_version(announcements.policy_may_be_another)
        stack.push_async_callback(announcements.close)
        tenancy = await open_tenancy(ground, judges, webhooks)
        tuning = await open_tuning(ground, judges, room, tenancy.tenants, announcements)
        audit = RedisAudit(store)
        trials = await open_trials(ground, judges, room, tenancy, tuning, announcements, audit)
        stack.push_async_callback(trials.telling.close)
        serving = open_serving(ground, judges, room, tenancy, tuning, webhooks, trials.traffic)
        feedback = open_feedback(ground, judges, tenancy, tuning, serving, trials.feedback)
        reward_models = await open_reward_models(ground, model, tenancy.tenants, feedback.pairs, room.rewards)
        stack.push_async_callback(reward_models.close)
        node = _joined(
            ground, room.engine, tenancy, tuning, trials, serving, webhooks, feedback, reward_models, admin, audit
        )
        await room.engine.start(partial(_ready_for_traffic, node, room, plan))
        stack.push_async_callback(node.content.agent.drain)
        await stack.enter_async_context(node.jobs.running())
        stack.push_async_callback(node.tuning.close)
        await stack.enter_async_context(_background(node, ground.metrics, announcements))
        calibrator = RewardCalibrator(
            room.rewards, node.journal, lambda: tenancy.tenants.languages, lambda: node.tuning.summary == "running"
        )
        await stack.enter_async_context(running(calibrator.run(), name="reward-calibration"))
        yield node


def _joined(
    ground: Ground,
    engine: SupervisedEngine,
    tenancy: Tenancy,
    tuning: Tuning,
    trials: Trials,
    serving: Serving,
    webhooks: Webhooks,
    feedback: NodeFeedback,
    reward_models: RewardModelDesk,
    admin: AdminKey,
    audit: RedisAudit,
) -> Node:
    return Node(
        config=ground.config,
        store=ground.store,
        engine=engine,
        journal=tuning.journal,
        content=serving.content,
        chat=serving.chat,
        tuning=tuning.runs,
        pacing=serving.pacing,
        policies=tuning.publisher,
        canaries=trials.canaries,
        tenant_policies=tuning.tenant_policies,
        jobs=serving.jobs,
        metrics=serving.metrics,
        keys=NodeKeys(tenancy.tenants, admin),
        admin=admin,
        tenancy=tenancy.registry,
        limits=tenancy.limits,
        usage=tenancy.usage,
        audit=audit,
        webhooks=webhooks,
        feedback=feedback,
        reward_models=reward_models,
    )


@asynccontextmanager
async def _background(node: Node, metrics: Metrics, announcements: Announcements) -> AsyncIterator[None]:
    """What goes on beside requests, for the length of the block."""
    async with (
        running(node.tenancy.run(), name="tenants"),
        running(node.usage.run(), name="usage"),
        running(watch_journal(node.journal, metrics), name="journal"),
        running(node.pacing.run(), name="pacing"),
        running(node.canaries.run(), name="canary"),
        running(announcements.watch_policy(), name="announcements"),
    ):
        yield


async def _ready_for_traffic(node: Node, room: EngineRoom, plan: MemoryPlan) -> None:
    """What a fresh engine needs before the first request: room and graphs for training, a check of what it computes,
    reward models, the active policy.

    A model that cannot be trained is served all the same, unchecked. The plan is logged beside what the device holds
    then.

    Raises:
        ModelError: the engine does not compute its model.
    """
    run = RunPlan.of(RunRequest(), node.config.tuning, ())
    try:
        await room.trainer.prepare(
            run.learner,
            max_length=node.config.engine.max_model_len,
            reply_tokens=run.max_tokens,
            temperature=node.config.tuning.temperature,
        )
    except EngineDead:
        raise
    except TrainerFailed as error:
        log.error("training_not_prepared", reason=str(error))
    else:
        engine = node.config.engine
        parity = await node.policies.probe.check_base(
            min(_CHECKED_ON_GPU, engine.max_num_seqs) if plan.device_bytes is not None else _CHECKED_ON_CPU,
            longest=engine.max_model_len // 2,
        )
        log.info("engine_checked", parity_mean=round(parity.mean, 5), parity_max=round(parity.max, 5))
    await room.rewards.prepare()
    await node.policies.restore()
    await node.canaries.open()
    await node.tuning.pick_up()
    for row in compare(plan, await node.engine.call("coloq_memory")):
        log.info(
            "memory_measured",
            part=row.name,
            planned_mib=row.predicted_bytes >> 20,
            measured_mib=row.measured_bytes >> 20,
            error=None if row.relative_error is None else round(row.relative_error, 3),
        )
