"""Feeds the node's metrics from its parts, which know nothing of metrics."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from agent.chat import ChatAgent, ChatReply, Dialogue
from agent.commission import Commission
from agent.completion import Sampling
from agent.episode import Reply
from agent.errors import StoreError
from agent.keeper import EpisodeKeeper
from agent.ports import Listener
from agent.writer import ContentAgent
from service.fair_queue import FairQueue
from service.jobs.records import Job
from service.journal import RedisJournal
from service.supervised_engine import SupervisedEngine
from service.telemetry import Metrics
from trainer.records import RunState, RunStatus

log = structlog.get_logger(__name__)

_JOURNAL_PERIOD_S = 15.0


@dataclass(frozen=True, slots=True)
class MeteredContent:
    """service.http.ports.ContentPort: the content agent, counted."""

    agent: ContentAgent
    metrics: Metrics

    async def write(self, commission: Commission) -> Reply:
        """See ContentPort."""
        try:
            reply = await self.agent.write(commission)
        except BaseException as error:
            self.metrics.content_failed(commission.brief.tenant, error)
            raise
        self.metrics.observe_reply(commission.brief.tenant, reply)
        return reply


@dataclass(frozen=True, slots=True)
class MeteredChat:
    """service.http.ports.ChatPort: the chat agent, counted."""

    agent: ChatAgent
    metrics: Metrics

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
        """See ChatPort. Every choice counts as a reply."""
        try:
            reply = await self.agent.answer(
                dialogue,
                sampling,
                request_id=request_id,
                num_choices=num_choices,
                listeners=listeners,
                wait_s=wait_s,
            )
        except BaseException as error:
            self.metrics.content_failed(dialogue.tenant, error)
            raise
        for choice in reply.choices:
            self.metrics.observe_reply(dialogue.tenant, choice.reply)
        return reply


@dataclass(frozen=True, slots=True)
class MeteredJobs:
    """service.jobs.ports.JobEvents: finished jobs, counted."""

    metrics: Metrics

    async def finished(self, job: Job) -> None:
        """See JobEvents."""
        self.metrics.job_finished(job.order.tenant, job.state.value)


@dataclass(frozen=True, slots=True)
class NodeMetrics:
    """service.http.ports.RequestMetrics: gauges are read when they are asked for."""

    metrics: Metrics
    engine: SupervisedEngine
    queue: FairQueue
    keeper: EpisodeKeeper

    def observe_request(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """See RequestMetrics."""
        self.metrics.observe_request(method=method, route=route, status=status, duration_s=duration_s)

    def render(self) -> str:
        """See RequestMetrics."""
        self.metrics.set_engine_ready(self.engine.state == "ready")
        self.metrics.set_active_policy(self.engine.active_version)
        self.metrics.set_queued_requests(self.queue.waiting())
        self.metrics.set_journal_waiting(self.keeper.num_waiting)
        self.metrics.set_rollouts_in_flight(self.engine.slots.num_rollouts)
        self.metrics.set_rollouts_preempted(self.engine.slots.num_preemptions)
        return self.metrics.render()


def count_run(metrics: Metrics, status: RunStatus) -> None:
    """Count a run that ended, and what it published."""
    metrics.tuning.run_ended(status.state.value)
    for _ in status.published:
        metrics.publication_ended("published")
    if status.state in (RunState.REJECTED, RunState.FAILED):
        metrics.publication_ended(status.state.value)


async def watch_journal(journal: RedisJournal, metrics: Metrics) -> None:
    """Keep the journal's gauges fresh, forever."""
    while True:
        try:
            counts = await journal.count()
            metrics.set_journal_episodes(
                {(tenant, language, split.value): num for (tenant, language, split), num in counts.items()}
            )
        except StoreError as error:
            log.warning("journal_not_counted", reason=str(error))
        await asyncio.sleep(_JOURNAL_PERIOD_S)
