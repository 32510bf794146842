"""What a job is: an order that was accepted, and what became of it.

    queued ──► running ──► succeeded | failed
      ▲  └────────┼──────► cancelled
      └───────────┘ a try that may succeed later, or a node that stopped

Knows neither HTTP nor the store. A final job never changes again.
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

ID_PATTERN = r"^job_[0-9a-f]{28}$"
"""No other text is ever looked up in the store."""


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """True when nothing more happens to the job."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class Lane(StrEnum):
    """The streams of a tenant's jobs."""

    HELD = "held"
    """Jobs that the node which accepted them runs at once: somebody waits, or the work has already begun."""
    QUEUED = "queued"
    """Jobs that any node takes when it has room."""
    FINISHED = "finished"
    """Finished jobs that subscribers have not heard of yet."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done, as it was accepted."""

    tenant: str
    route: str
    """The route that took it, such as ``/v1/content``; it chooses who carries the order out."""
    body: str
    """The request's validated body, as JSON."""
    request_id: str
    """The id of the call that brought it; every try runs under it, so that the journal keeps one episode."""
    callback_url: str | None = None
    """Where the caller wants to hear of the end; subscribers of the jobs' events deliver it."""
    wait_s: float | None = None
    """How long its caller is held for the answer; None when nobody is. What can be left out is, to make that."""
    key_id: str | None = None
    """The tenant's key that brought it; None for orders that were stored before keys were kept."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer that can be kept: what the caller gets, now or when it asks again."""

    status: int
    body: str
    """JSON: the reply, or a problem document."""
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def worth_another_try(self) -> bool:
        """True when the node failed, or had no room (429), and not the order."""
        return self.status >= 500 or self.status == 429


@dataclass(frozen=True, slots=True)
class Job:
    """An order with its history."""

    id: str
    order: Order
    state: JobState
    created_at: datetime
    started_at: datetime | None = None
    """When the newest try began."""
    finished_at: datetime | None = None
    attempts: int = 0
    """Tries so far, the present one included; a try that a node's orderly stop ended is not counted."""
    answer: Answer | None = None
    """Present exactly when the job is final."""
    dead_reason: str | None = None
    """Why the job was given up after its last try; None for every other job."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A node's hold on one entry of a lane."""

    tenant: str
    job_id: str
    lane: Lane
    entry: str
    """The entry's id in the lane's stream."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of an order that was handed in."""

    job_id: str
    created: bool
    """False when an earlier order of the same idempotency key stands for this one."""
    claim: Claim | None = None
    """The hold of the node that handed a new order into the lane ``held``."""


@dataclass(frozen=True, slots=True)
class JobPage:
    """Some of a tenant's jobs, newest first."""

    jobs: tuple[Job, ...]
    next_cursor: str | None
    """Where the next page begins; None on the last one."""


def new_job_id() -> str:
    """`job_`, the time in milliseconds as 12 hex digits, 64 random bits: ids sort by age."""
    return f"job_{int(time.time() * 1000):012x}{secrets.token_hex(8)}"
