"""What jobs need of a store and of those who carry them out and hear of them. The fakes are in service.jobs.fakes."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from service.idempotency import IdempotencyKey
from service.jobs.records import Answer, Claim, Job, JobPage, JobState, Lane, Order, Submission


class JobStore(Protocol):
    """Where jobs are kept. Every method is atomic and raises StoreError when the store cannot be reached.

    A method that returns a job raises UnreadableRecord where what is kept of it cannot be read, after it has done what
    it was asked to. Pages leave such jobs out.
    """

    async def submit(self, order: Order, lane: Lane, consumer: str, key: IdempotencyKey | None = None) -> Submission:
        """Accept an order, or find the job that stands for its key. Lane HELD: ``consumer`` has it at once.

        Raises:
            IdempotencyKeyReused: the key stands for another body, and its job has not failed.
        """
        ...

    async def synced(self) -> None:
        """Return once everything accepted so far would survive a power cut, as far as the server can tell."""
        ...

    async def get(self, tenant: str, job_id: str) -> Job | None:
        """A tenant's job; None when it has none of that id, or no longer."""
        ...

    async def of_key(self, tenant: str, name: str) -> Job | None:
        """The newest job that an idempotency key of this name stood for, if it is kept: also when the key itself has
        expired since, or was freed."""
        ...

    async def page(self, tenant: str, *, cursor: str | None, limit: int, state: JobState | None) -> JobPage:
        """Up to ``limit`` jobs older than ``cursor``, newest first. With ``state`` a page may hold fewer, or none,
        and still name the next."""
        ...

    async def take(self, lane: Lane, consumer: str, count: int) -> Sequence[Claim]:
        """Claim up to ``count`` entries that nobody had, tenants in turn."""
        ...

    async def take_over(self, lane: Lane, consumer: str, *, idle_s: float) -> Sequence[Claim]:
        """Claim entries whose holder has not been heard of for ``idle_s``."""
        ...

    async def renew(self, claims: Iterable[Claim], consumer: str) -> frozenset[str]:
        """Tell that ``consumer`` still works on these; returns the ids of jobs that are final or gone meanwhile."""
        ...

    async def begin(self, claim: Claim) -> Job | None:
        """Count a try and set the job RUNNING; None, and the claim is settled, when the job is final or gone."""
        ...

    async def put_back(self, claim: Claim, *, uncount: bool) -> None:
        """Set a running job QUEUED again, still claimed; ``uncount`` takes its try back. A final job stays."""
        ...

    async def finish(
        self, tenant: str, job_id: str, state: JobState, answer: Answer, *, dead_reason: str | None = None
    ) -> Job | None:
        """Write the one result: state and answer, the claim settled and the event queued, all together.

        A failure that is not the order's (Answer.worth_another_try) also frees the idempotency key. None when the job
        is final already, or gone; nothing is changed then.
        """
        ...

    async def settle(self, claim: Claim) -> None:
        """Remove an entry for good."""
        ...

    async def answered(self, tenant: str, job_id: str) -> None:
        """A caller got the answer of this job: its key, if it stands for the job still and has an ``answered_ttl_s``,
        is kept for so long from now on."""
        ...

    async def forget_idle_consumers(self, consumer: str, *, idle_s: float) -> None:
        """Remove what is left of nodes that hold nothing and were not heard of for ``idle_s``."""
        ...


class Executor(Protocol):
    """Carries orders out."""

    async def execute(self, order: Order) -> Answer:
        """The answer to an order; raises whatever went wrong. Cancelling the call stops the work."""
        ...

    def failure(self, order: Order, error: Exception) -> Answer:
        """The problem that tells of what ``execute`` raised."""
        ...


class Slot(Protocol):
    """A place among the requests of a tenant and key that run at one time."""

    def pass_on(self) -> "Slot":
        """The same place for another holder; ``leave`` of this one changes nothing from now on."""
        ...

    def leave(self) -> None:
        """Free the place. Twice is the same as once."""
        ...


class FreeSlot:
    """A place where nobody counts."""

    def pass_on(self) -> Slot:
        """See Slot."""
        return self

    def leave(self) -> None:
        """See Slot."""


Occupy = Callable[[Order], Slot]
"""Counts an order's work among what runs, whatever the limits say: it was accepted."""


def uncounted(_: Order) -> Slot:
    """An Occupy that counts nothing."""
    return FreeSlot()


class JobEvents(Protocol):
    """Hears of finished jobs."""

    async def finished(self, job: Job) -> None:
        """Called at least once per finished job, cancelled ones too, also when the node stops between the result and
        this call. An exception has it called again later."""
        ...
