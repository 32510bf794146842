"""What feedback needs of a store and of the journal, as Protocols. The fakes are in service.feedback.fakes."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from agent.episode import Episode
from agent.feedback import Feedback
from service.idempotency import IdempotencyKey
from service.jobs.records import Job

MAX_LISTED = 200
"""Pieces of feedback that are read for one request, the newest ones."""


class FeedbackStore(Protocol):
    """Where feedback is kept; only ever added to, until retention ends it. Methods raise StoreError."""

    async def add(self, given: Sequence[Feedback], key: IdempotencyKey | None = None) -> list[bool]:
        """Keep what one call brought for one reply, all of it or nothing; True for each piece that is new.

        Without a key a piece is a repetition when the newest one in its slot says the same; with one, when the key was
        there before.

        Raises:
            IdempotencyKeyReused: the key stands for another body.
        """
        ...

    async def of_request(self, tenant: str, request_id: str) -> list[Feedback]:
        """The newest pieces for a reply, at most MAX_LISTED, oldest first."""
        ...

    def read(self, tenant: str) -> AsyncIterator[Sequence[Feedback]]:
        """All that a tenant's callers gave, oldest first, in batches."""
        ...

    async def tenants(self) -> Sequence[str]:
        """Tenants that have given feedback, sorted."""
        ...


class KeyedJobs(Protocol):
    """Jobs, asked for by idempotency keys; `service.jobs.desk.JobDesk` is one."""

    async def of_key(self, tenant: str, name: str) -> Job | None:
        """See service.jobs.ports.JobStore.of_key."""
        ...


class Episodes(Protocol):
    """The journal, asked for single episodes. Methods raise StoreError."""

    async def known(self, tenant: str, request_ids: Sequence[str]) -> list[str]:
        """Those of the ids that the journal keeps for the tenant, in order."""
        ...

    async def get_many(self, tenant: str, request_ids: Sequence[str]) -> Mapping[str, Episode]:
        """The tenant's episodes of these ids; those that are not kept are absent."""
        ...

    async def find(self, request_id: str) -> Episode | None:
        """The episode of that id, whosever it is."""
        ...
