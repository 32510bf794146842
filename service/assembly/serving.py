"""How a node answers: fair queue, agents, jobs, and the pace that live traffic leaves to training."""

from dataclasses import dataclass
from functools import partial

import structlog

from agent.chat import ChatAgent
from agent.prompt import PromptLibrary
from agent.repairer import Repairer
from agent.writer import ContentAgent
from rewards.ranker import PanelRanker
from service.assembly.engine_room import EngineRoom
from service.assembly.ground import Ground
from service.assembly.judges import Judges
from service.assembly.tenancy import Tenancy
from service.assembly.tuning import Tuning
from service.canary.traffic import Traffic, WatchedEngine, WatchedJournal
from service.controller import Controller
from service.fair_engine import FairEngine
from service.fair_queue import FairQueue
from service.http.content_executor import ContentExecutor
from service.http.job_webhooks import JobWebhooks
from service.jobs.announcer import LoggedEvents, Subscribers
from service.jobs.desk import JobDesk
from service.jobs.store import RedisJobStore
from service.metering import MeteredChat, MeteredContent, MeteredJobs, NodeMetrics
from service.pacing import Pacing
from service.telemetry import Metrics
from service.webhooks.assembly import Webhooks

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers, and what counts the answers."""

    content: MeteredContent
    chat: MeteredChat
    jobs: JobDesk
    pacing: Pacing
    metrics: NodeMetrics


def open_serving(
    ground: Ground,
    judges: Judges,
    room: EngineRoom,
    tenancy: Tenancy,
    tuning: Tuning,
    webhooks: Webhooks,
    traffic: Traffic,
) -> Serving:
    """The agents behind the fair queue. Nothing runs yet."""
    metrics = ground.metrics
    queue = FairQueue(lambda: room.engine.slots.total.num_seqs, tenancy.tenants.share)
    engine = FairEngine(WatchedEngine(room.engine, traffic), queue, tenancy.limits.charge)
    prompts = PromptLibrary.load()
    repairer = Repairer.of(engine, room.encoder, prompts, ground.config.agent)
    agent = ContentAgent(
        engine,
        room.encoder,
        prompts,
        judges.contract,
        PanelRanker(judges.panel.live),
        WatchedJournal(tuning.journal, traffic),
        tenancy.tenants,
        partial(_journal_failed, metrics),
        repairer,
    )
    chat = ChatAgent(engine, room.encoder, judges.contract, agent.keeper, tenancy.tenants, repairer)
    content = MeteredContent(agent, metrics)
    return Serving(
        content=content,
        chat=MeteredChat(chat, metrics),
        jobs=_jobs(ground, content, tenancy, webhooks),
        pacing=_pacing(ground, room, tuning, queue),
        metrics=NodeMetrics(metrics, room.engine, queue, agent.keeper),
    )


def _jobs(ground: Ground, content: MeteredContent, tenancy: Tenancy, webhooks: Webhooks) -> JobDesk:
    config = ground.config
    return JobDesk(
        RedisJobStore(ground.store, config.jobs),
        ContentExecutor(content, tenancy.tenants, config.agent),
        # The one that may fail comes first: then all hear again, and nothing is counted twice.
        Subscribers(JobWebhooks(webhooks.deliveries), LoggedEvents(), MeteredJobs(ground.metrics)),
        config.jobs,
        sole_user=ground.store.embedded is not None,
        occupy=lambda order: tenancy.limits.occupy(order.tenant, order.key_id),
    )


def _pacing(ground: Ground, room: EngineRoom, tuning: Tuning, queue: FairQueue) -> Pacing:
    return Pacing(
        room.engine,
        Controller(ground.config.slo),
        room.live,
        room.gate,
        ground.metrics,
        is_tuning=lambda: tuning.runs.summary == "running",
        num_queued=lambda: queue.num_waiting,
    )


def _journal_failed(metrics: Metrics, tenant: str, error: Exception) -> None:
    metrics.journal_failed(tenant)
    log.error("episode_not_journalled", tenant=tenant, reason=type(error).__name__)
