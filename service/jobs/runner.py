"""Carries claimed jobs out: one task per job, from the first try to the one result.

    claim ─► begin ─► execute ─► finish
               ▲         └─► the node's failure, or no room: put back, wait, try again; after the last try it is dead
               └─── at most `jobs.max_attempts` times, tries that ended with their node included

A store that is away is waited for: a result is kept until it can be written. A job that cannot be read is left where it
is, and tried again when its lease has run out. Knows no HTTP.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog

from agent.errors import JobAbandoned, StoreError, UnreadableRecord
from service.config import JobsConfig
from service.jobs.ports import Executor, JobStore, Occupy, Slot, uncounted
from service.jobs.pump import Pump
from service.jobs.records import Answer, Claim, Job, JobState, Lane
from service.tasks import end

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

T = TypeVar("T")
_FIRST_BACKOFF_S = 1.0
_LONGEST_BACKOFF_S = 30.0
_STORE_RETRY_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(slots=True)
class _Run:
    """A job that this node has in hand."""

    claim: Claim
    task: "asyncio.Task[None]"
    slot: Slot | None
    """None until it is known whose job it is."""
    counted: bool = False
    """True while a try of it is counted that has no result yet."""


class JobRunner:
    """The jobs that one node has in hand. ``on_finished`` is called after each result.

    Each counts against its tenant's and key's concurrent requests as long as it is in hand, whether or not its caller
    still waits: in the place that the call had, or else in one that ``occupy`` gives.
    """

    def __init__(
        self,
        store: JobStore,
        executor: Executor,
        config: JobsConfig,
        on_finished: Callable[[], None],
        occupy: Occupy = uncounted,
    ) -> None:
        self.consumer = secrets.token_hex(8)
        """The node's name in the streams' groups, another one at each start."""
        self._store = store
        self._executor = executor
        self._config = config
        self._on_finished = on_finished
        self._occupy = occupy
        self._runs: dict[str, _Run] = {}
        self._watched: dict[str, set[asyncio.Event]] = {}
        self._queue = Pump("take-jobs", self._take_queued)
        self._closing = False

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What is in hand."""
        return tuple(run.claim for run in self._runs.values())

    def start(self, claim: Claim, work: "asyncio.Task[Answer] | None" = None, slot: Slot | None = None) -> None:
        """Carry a claimed job out, unless it is in hand already.

        Args:
            work: a first try that has begun.
            slot: the call's, which is the job's from here on.
        """
        if claim.job_id not in self._runs:
            task = asyncio.create_task(self._carry_out(claim, work), name=claim.job_id)
            self._runs[claim.job_id] = _Run(claim, task, slot.pass_on() if slot is not None else None)
            task.add_done_callback(lambda _: self._ended(claim))

    def poke(self) -> None:
        """There may be queued jobs."""
        if not self._closing:
            self._queue.poke()

    def stop(self, job_id: str) -> None:
        """Stop the work on a job that has its result, or belongs to another node now."""
        if (run := self._runs.get(job_id)) is not None:
            run.task.cancel()

    @contextmanager
    def watched(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the job, if this node has it in hand, may have got its result."""
        event = asyncio.Event()
        self._watched.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            self._watched[job_id].discard(event)
            if not self._watched[job_id]:
                del self._watched[job_id]

    async def close(self) -> None:
        """Stop every job and put it back: the next start goes on with it, and this try does not count."""
        self._closing = True
        await self._queue.close()
        runs = list(self._runs.values())
        await end(run.task for run in runs)
        for run in runs:
            if run.counted:
                await self._put_back_at_last(run.claim)

    async def _put_back_at_last(self, claim: Claim) -> None:
        try:
            await self._store.put_back(claim, uncount=True)
        except StoreError as error:
            log.warning("job_not_put_back", job=claim.job_id, reason=str(error))

    async def _take_queued(self) -> None:
        while (room := self._room) > 0:
            claims = await self._store.take(Lane.QUEUED, self.consumer, room)
            if not claims:
                return
            for claim in claims:
                self.start(claim)

    @property
    def _room(self) -> int:
        num_queued = sum(run.claim.lane is Lane.QUEUED for run in self._runs.values())
        return self._config.concurrency - num_queued

    def _ended(self, claim: Claim) -> None:
        run = self._runs.pop(claim.job_id)
        if run.slot is not None:
            run.slot.leave()
        for event in self._watched.get(claim.job_id, ()):
            event.set()
        if not run.task.cancelled() and (error := run.task.exception()) is not None:
            # Nothing but a defect comes here; the claim's lease runs out, and the job is tried again.
            log.error("job_broke", job=claim.job_id, error=type(error).__name__)
        if claim.lane is Lane.QUEUED:
            self.poke()

    async def _carry_out(self, claim: Claim, work: "asyncio.Task[Answer] | None") -> None:
        structlog.contextvars.bind_contextvars(tenant=claim.tenant, job=claim.job_id)
        try:
            while (job := await self._begun(claim)) is not None:
                answer = await self._answer(job, work)
                work = None
                if await self._is_settled(job, answer):
                    return
                await self._sleep(claim, job)
        finally:
            if work is not None:
                work.cancel()

    async def _begun(self, claim: Claim) -> Job | None:
        try:
            job = await _patiently(lambda: self._store.begin(claim))
        except UnreadableRecord as error:  # maybe the version that wrote it comes back
            log.error("job_unreadable", reason=str(error))
            await _patiently(lambda: self._store.put_back(claim, uncount=True))
            return None
        if job is not None:
            run = self._runs[claim.job_id]
            run.counted = True
            if run.slot is None:
                run.slot = self._occupy(job.order)
            structlog.contextvars.bind_contextvars(request_id=job.order.request_id)
        return job

    async def _answer(self, job: Job, work: "asyncio.Task[Answer] | None") -> Answer:
        if job.attempts > self._config.max_attempts:
            tries = f"the node stopped during the last of {job.attempts - 1} tries"
            return self._executor.failure(job.order, JobAbandoned(f"{tries}, and it is not tried again"))
        try:
            return await (work if work is not None else self._executor.execute(job.order))
        except Exception as error:  # noqa: BLE001 - a job's failure is its answer, whatever it was
            answer = self._executor.failure(job.order, error)
            log.warning("job_try_failed", attempt=job.attempts, error=type(error).__name__, status=answer.status)
            return answer

    async def _is_settled(self, job: Job, answer: Answer) -> bool:
        """Write the result; False when the order is worth another try and has one left."""
        dead_reason = None
        if answer.worth_another_try:
            if job.attempts < self._config.max_attempts:
                return False
            dead_reason = f"given up after {min(job.attempts, self._config.max_attempts)} tries"
            log.error("job_dead", attempts=job.attempts, status=answer.status)
        state = JobState.SUCCEEDED if answer.status < 400 else JobState.FAILED
        tenant, job_id = job.order.tenant, job.id
        await _patiently(lambda: self._store.finish(tenant, job_id, state, answer, dead_reason=dead_reason))
        self._runs[job_id].counted = False
        self._on_finished()
        return True

    async def _sleep(self, claim: Claim, job: Job) -> None:
        await _patiently(lambda: self._store.put_back(claim, uncount=False))
        self._runs[claim.job_id].counted = False
        await asyncio.sleep(min(_FIRST_BACKOFF_S * 2 ** (job.attempts - 1), _LONGEST_BACKOFF_S))


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """The result of a call of the store, tried until the store answers.

    Raises:
        UnreadableRecord: asking again would not help.
    """
    tries = 0
    while True:
        try:
            return await call()
        except UnreadableRecord:
            raise
        except StoreError as error:
            if tries == 0:
                log.warning("job_waits_for_the_store", reason=str(error))
            await asyncio.sleep(_STORE_RETRY_S[min(tries, len(_STORE_RETRY_S) - 1)])
            tries += 1
