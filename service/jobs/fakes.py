"""Fakes of service.jobs.ports: jobs in memory, an executor that follows a script, subscribers that remember.

The memory store keeps every promise of the port but durability.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent.errors import IdempotencyKeyReused, JobCancelled, UnreadableRecord
from service.idempotency import HEADER, IdempotencyKey
from service.jobs.records import (
    Answer,
    Claim,
    Job,
    JobPage,
    JobState,
    Lane,
    Order,
    Submission,
    new_job_id,
)


@dataclass
class MemoryJobStore:
    """``JobStore`` in memory. ``failure`` is raised by every method while it is set; jobs of ``unreadable`` are as if
    another version had written them."""

    jobs: dict[str, Job] = field(default_factory=dict)
    failure: Exception | None = None
    unreadable: set[str] = field(default_factory=set)
    num_syncs: int = 0
    answered_keys: list[str] = field(default_factory=list)
    _entries: dict[str, Claim] = field(default_factory=dict)
    _holders: dict[str, str] = field(default_factory=dict)
    """Who has which entry; an entry without a holder is new."""
    _keys: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    _shortened: dict[str, str] = field(default_factory=dict)
    """Keys that live shorter once their job's answer was told, by job."""
    _job_of_key: dict[tuple[str, str], str] = field(default_factory=dict)
    """Stays when the key is freed."""
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def submit(self, order: Order, lane: Lane, consumer: str, key: IdempotencyKey | None = None) -> Submission:
        """See JobStore."""
        self._check()
        if key is not None and (known := self._keys.get((order.tenant, key.name))) is not None:
            fingerprint, job_id = known
            if fingerprint == key.fingerprint:
                return Submission(job_id, created=False)
            if self.jobs[job_id].state is not JobState.FAILED:
                raise IdempotencyKeyReused(HEADER, "must be new for a new body, but it was used for another one")
        job = Job(new_job_id(), order, JobState.QUEUED, _now())
        self.jobs[job.id] = job
        if key is not None:
            self._keys[order.tenant, key.name] = key.fingerprint, job.id
            self._job_of_key[order.tenant, key.name] = job.id
            if key.answered_ttl_s is not None:
                self._shortened[job.id] = key.name
        claim = self._add(order.tenant, job.id, lane)
        if lane is not Lane.HELD:
            return Submission(job.id, created=True)
        self._holders[claim.entry] = consumer
        return Submission(job.id, created=True, claim=claim)

    async def synced(self) -> None:
        """See JobStore."""
        self._check()
        self.num_syncs += 1

    async def get(self, tenant: str, job_id: str) -> Job | None:
        """See JobStore."""
        self._check()
        self._read(job_id)
        job = self.jobs.get(job_id)
        return job if job is not None and job.order.tenant == tenant else None

    async def of_key(self, tenant: str, name: str) -> Job | None:
        """See JobStore."""
        self._check()
        job_id = self._job_of_key.get((tenant, name))
        return self.jobs.get(job_id) if job_id is not None else None

    async def page(self, tenant: str, *, cursor: str | None, limit: int, state: JobState | None) -> JobPage:
        """See JobStore."""
        self._check()
        found = [
            job
            for job_id, job in sorted(self.jobs.items(), reverse=True)
            if job.order.tenant == tenant
            and (cursor is None or job_id < cursor)
            and (state is None or job.state is state)
            and job_id not in self.unreadable
        ]
        return JobPage(tuple(found[:limit]), found[limit - 1].id if len(found) > limit else None)

    async def take(self, lane: Lane, consumer: str, count: int) -> Sequence[Claim]:
        """See JobStore."""
        self._check()
        fresh = [claim for entry, claim in self._entries.items() if claim.lane is lane and entry not in self._holders][
            :count
        ]
        self._holders |= {claim.entry: consumer for claim in fresh}
        return fresh

    async def take_over(self, lane: Lane, consumer: str, *, idle_s: float) -> Sequence[Claim]:
        """See JobStore: here every holder is as idle as it gets."""
        self._check()
        found = [self._entries[entry] for entry in self._holders if self._entries[entry].lane is lane]
        self._holders |= {claim.entry: consumer for claim in found}
        return found

    async def renew(self, claims: Iterable[Claim], consumer: str) -> frozenset[str]:
        """See JobStore."""
        self._check()
        return frozenset(claim.job_id for claim in claims if self._holders.get(claim.entry) != consumer)

    async def begin(self, claim: Claim) -> Job | None:
        """See JobStore."""
        self._check()
        job = self.jobs.get(claim.job_id)
        if job is None or job.state.final:
            self._remove(claim.entry)
            return None
        begun = self._keep(replace(job, state=JobState.RUNNING, started_at=_now(), attempts=job.attempts + 1))
        self._read(begun.id)
        return begun

    async def put_back(self, claim: Claim, *, uncount: bool) -> None:
        """See JobStore."""
        self._check()
        job = self.jobs[claim.job_id]
        if job.state is JobState.RUNNING:
            self._keep(replace(job, state=JobState.QUEUED, attempts=job.attempts - uncount))

    async def finish(
        self, tenant: str, job_id: str, state: JobState, answer: Answer, *, dead_reason: str | None = None
    ) -> Job | None:
        """See JobStore."""
        self._check()
        job = await self.get(tenant, job_id)
        if job is None or job.state.final:
            return None
        for entry in [entry for entry, claim in self._entries.items() if claim.job_id == job_id]:
            self._remove(entry)
        if state is JobState.FAILED and answer.worth_another_try:
            self._keys = {name: known for name, known in self._keys.items() if known[1] != job_id}
        self._add(tenant, job_id, Lane.FINISHED)
        return self._keep(replace(job, state=state, answer=answer, finished_at=_now(), dead_reason=dead_reason))

    async def settle(self, claim: Claim) -> None:
        """See JobStore."""
        self._check()
        self._remove(claim.entry)

    async def answered(self, tenant: str, job_id: str) -> None:
        """See JobStore; nothing expires here."""
        self._check()
        if job_id in self._shortened:
            self.answered_keys.append(self._shortened[job_id])

    async def forget_idle_consumers(self, consumer: str, *, idle_s: float) -> None:
        """See JobStore; there is nothing to forget."""
        self._check()

    def _read(self, job_id: str) -> None:
        if job_id in self.unreadable:
            raise UnreadableRecord("a stored Order cannot be read: ValidationError")

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _add(self, tenant: str, job_id: str, lane: Lane) -> Claim:
        claim = Claim(tenant, job_id, lane, f"{next(self._ids)}-0")
        self._entries[claim.entry] = claim
        return claim

    def _remove(self, entry: str) -> None:
        self._entries.pop(entry, None)
        self._holders.pop(entry, None)

    def _keep(self, job: Job) -> Job:
        self.jobs[job.id] = job
        return job


@dataclass
class ScriptedExecutor:
    """Answers with what ``script`` makes of an order; keeps what it was asked."""

    script: Callable[[Order], Awaitable[Answer]]
    orders: list[Order] = field(default_factory=list)
    num_cancelled: int = 0

    async def execute(self, order: Order) -> Answer:
        """See Executor."""
        self.orders.append(order)
        try:
            return await self.script(order)
        except asyncio.CancelledError:
            self.num_cancelled += 1
            raise

    def failure(self, order: Order, error: Exception) -> Answer:
        """See Executor: the error's class in JSON; 409 for a cancellation, 422 for a ValueError, 500 for the rest."""
        status = 409 if isinstance(error, JobCancelled) else 422 if isinstance(error, ValueError) else 500
        return Answer(status, f'{{"code":"{type(error).__name__}"}}', "application/problem+json")


@dataclass
class RememberedEvents:
    """Subscribers that remember whom they heard of; ``error`` is raised while it is set."""

    jobs: list[Job] = field(default_factory=list)
    error: Exception | None = None

    async def finished(self, job: Job) -> None:
        """See JobEvents."""
        if self.error is not None:
            raise self.error
        self.jobs.append(job)


def _now() -> datetime:
    return datetime.now(UTC)
