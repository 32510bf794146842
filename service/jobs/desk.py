"""Where jobs are handed in, asked for, waited for and cancelled: one desk per node.

    accept ─► store ─► runner ─► store ─► announcer ─► subscribers
    adopt ──────────────┘ (work that has begun)

Knows no HTTP: answers are opaque to it beside their status.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from agent.errors import JobCancelled, NotFound, StoreError
from service.config import JobsConfig
from service.idempotency import IdempotencyKey
from service.jobs.announcer import Announcer
from service.jobs.ports import Executor, JobEvents, JobStore, Occupy, Slot, uncounted
from service.jobs.records import ID_PATTERN, Answer, Job, JobPage, JobState, Lane, Order, Submission
from service.jobs.recovery import Recovery
from service.jobs.runner import JobRunner

_POLL_S = 1.0
"""How often a job in another node's hands is looked at by who waits for it."""
_CLOSE_S = 5.0


class JobDesk:
    """A node's jobs. It works as soon as it is made; `running` adds what outlives a process.

    Args:
        sole_user: no other node uses the store (an embedded one).
        occupy: counts jobs whose call is not there any more.
    """

    def __init__(
        self,
        store: JobStore,
        executor: Executor,
        events: JobEvents,
        config: JobsConfig,
        *,
        sole_user: bool = False,
        occupy: Occupy = uncounted,
    ) -> None:
        self._store = store
        self.executor = executor
        self._runner = JobRunner(store, executor, config, self._finished, occupy)
        self._announcer = Announcer(store, events, self._runner.consumer)
        self._recovery = Recovery(store, self._runner, self._announcer, lease_s=config.lease_s, sole_user=sole_user)
        self._released: asyncio.Future[None] | None = None
        self._stopping = False
        self._accepting: set[asyncio.Task[Submission]] = set()

    @property
    def stopping(self) -> bool:
        """True once the node was told to stop."""
        return self._stopping

    @property
    def released(self) -> "asyncio.Future[None]":
        """Resolved when calls may not be held any longer: they become jobs. One for all, since every call waits for it;
        ask for it on the event loop."""
        if self._released is None:
            self._released = asyncio.get_running_loop().create_future()
        return self._released

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Go on with what earlier processes left, keep claims alive for the length of the block, put back what is not
        finished at its end."""
        watching = asyncio.create_task(self._recovery.run(), name="jobs")
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.wait({watching}, timeout=_CLOSE_S)
            await self.close()

    async def close(self) -> None:
        """Stop all work; unfinished jobs stay in the store."""
        if self._accepting:
            await asyncio.wait(self._accepting, timeout=_CLOSE_S)
        await self._runner.close()
        await self._announcer.close()

    def release_held(self, within_s: float) -> None:
        """The node was told to stop: calls that are still held after ``within_s`` become jobs."""
        self._stopping = True
        asyncio.get_running_loop().call_later(within_s, self._release, self.released)

    async def accept(
        self, order: Order, key: IdempotencyKey | None = None, *, at_once: bool, slot: Slot | None = None
    ) -> Submission:
        """Take an order, or find the job that stands for its key. ``at_once`` starts it here and now, in the call's
        ``slot``; a job that waits for its turn leaves that to the call.

        Cancelling the call does not keep an order that the store has taken from being carried out.

        Raises:
            IdempotencyKeyReused: the key stands for another body, and its job has not failed.
            StoreError: nothing was accepted, as far as this node knows.
        """
        accepting = asyncio.create_task(self._accept(order, key, Lane.HELD if at_once else Lane.QUEUED, slot))
        self._accepting.add(accepting)
        accepting.add_done_callback(self._accepting.discard)
        return await asyncio.shield(accepting)

    async def _accept(self, order: Order, key: IdempotencyKey | None, lane: Lane, slot: Slot | None) -> Submission:
        submission = await self._store.submit(order, lane, self._runner.consumer, key)
        if submission.claim is not None:
            self._runner.start(submission.claim, slot=slot)
        elif submission.created:
            self._runner.poke()
        return submission

    async def adopt(self, order: Order, work: "asyncio.Task[Answer]", slot: Slot | None = None) -> str:
        """Make a job of work that has begun; it and the call's ``slot`` belong to the desk from here on. The job's id.

        Raises:
            StoreError: nothing was accepted, and the work is still the caller's.
        """
        submission = await self._store.submit(order, Lane.HELD, self._runner.consumer)
        assert submission.claim is not None
        self._runner.start(submission.claim, work, slot)
        return submission.job_id

    async def promised(self, tenant: str, job_id: str) -> Job:
        """The job, after its acceptance has become durable.

        Raises:
            StoreError: it could not be made durable.
        """
        await self._store.synced()
        return await self.get(tenant, job_id)

    async def get(self, tenant: str, job_id: str) -> Job:
        """A tenant's job.

        Raises:
            NotFound: it has none of that id, or no longer.
        """
        job = await self._store.get(tenant, job_id) if re.fullmatch(ID_PATTERN, job_id) else None
        if job is None:
            raise NotFound(f"there is no job {job_id}; finished jobs are kept for a limited time")
        return job

    async def of_key(self, tenant: str, name: str) -> Job | None:
        """See JobStore.of_key."""
        return await self._store.of_key(tenant, name)

    async def page(self, tenant: str, *, cursor: str | None, limit: int, state: JobState | None) -> JobPage:
        """A tenant's jobs, newest first; see JobStore.page."""
        return await self._store.page(tenant, cursor=cursor, limit=limit, state=state)

    async def cancel(self, tenant: str, job_id: str) -> Job:
        """Stop a job; one that is final is returned as it is.

        Raises:
            NotFound: the tenant has none of that id.
        """
        job = await self.get(tenant, job_id)
        if job.state.final:
            return job
        answer = self.executor.failure(job.order, JobCancelled(f"{job_id} was cancelled before it had a result"))
        cancelled = await self._store.finish(tenant, job_id, JobState.CANCELLED, answer)
        if cancelled is None:
            return await self.get(tenant, job_id)
        self._runner.stop(job_id)
        self._finished()
        return cancelled

    async def until_final(self, tenant: str, job_id: str) -> Job:
        """The job once it is final, whichever node has it in hand. Cancelling the call leaves the job alone.

        Raises:
            NotFound: there is no such job.
        """
        with self._runner.watched(job_id) as moved:
            while True:
                moved.clear()
                with suppress(StoreError):  # it may come back while the caller is held
                    if (job := await self.get(tenant, job_id)).state.final:
                        return job
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await moved.wait()

    async def answered(self, job: Job) -> None:
        """A caller gets this final job's answer now. A store that is away changes nothing: a key then only lives
        longer."""
        with suppress(StoreError):
            await self._store.answered(job.order.tenant, job.id)

    @staticmethod
    def _release(released: "asyncio.Future[None]") -> None:
        if not released.done():  # told twice
            released.set_result(None)

    def _finished(self) -> None:
        self._announcer.poke()
