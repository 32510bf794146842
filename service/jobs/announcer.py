"""Tells subscribers of finished jobs, at least once each: an entry of lane FINISHED stays until they have heard."""

import structlog

from agent.errors import UnreadableRecord
from service.jobs.ports import JobEvents, JobStore
from service.jobs.pump import Pump
from service.jobs.records import Claim, Job, Lane

log = structlog.get_logger(__name__)

_BATCH = 16


class LoggedEvents:
    """Writes a line per finished job; no content."""

    async def finished(self, job: Job) -> None:
        """See JobEvents."""
        log.info("job_finished", job=job.id, tenant=job.order.tenant, state=job.state.value, attempts=job.attempts)


class Subscribers:
    """Several subscribers as one; when one fails, all hear of the job again."""

    def __init__(self, *subscribers: JobEvents) -> None:
        self._subscribers = subscribers

    async def finished(self, job: Job) -> None:
        """See JobEvents."""
        for subscriber in self._subscribers:
            await subscriber.finished(job)


class Announcer:
    """Reads lane FINISHED for one node."""

    def __init__(self, store: JobStore, events: JobEvents, consumer: str) -> None:
        self._store = store
        self._events = events
        self._consumer = consumer
        self._pump = Pump("announce-jobs", self._announce_new)

    def poke(self) -> None:
        """A job may have finished."""
        self._pump.poke()

    async def announce(self, claim: Claim) -> None:
        """Tell of one claimed entry. A subscriber's failure is logged, as is a job that cannot be read, and the entry
        comes again after the lease."""
        try:
            job = await self._store.get(claim.tenant, claim.job_id)
        except UnreadableRecord as error:
            log.error("job_unreadable", job=claim.job_id, tenant=claim.tenant, reason=str(error))
            return
        try:
            if job is not None:
                await self._events.finished(job)
        except Exception as error:  # noqa: BLE001 - one subscriber's failure must not silence the other jobs
            log.error("job_not_announced", job=claim.job_id, tenant=claim.tenant, error=type(error).__name__)
            return
        await self._store.settle(claim)

    async def close(self) -> None:
        """Stop; what was not heard of is told after the next start."""
        await self._pump.close()

    async def _announce_new(self) -> None:
        while claims := await self._store.take(Lane.FINISHED, self._consumer, _BATCH):
            for claim in claims:
                await self.announce(claim)
