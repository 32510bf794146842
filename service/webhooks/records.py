"""What is kept of webhooks: endpoints with their secrets, deliveries with every try. Frozen; stored as JSON."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from urllib.parse import urlsplit

Clock = Callable[[], datetime]
"""The time now, in UTC."""


def utc_now() -> datetime:
    """The system's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class SigningSecrets:
    """The secret that signs and, for a while after a rotation, the one before it. Each is `whsec_` and base64."""

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    previous_until: datetime | None = None

    def valid(self, now: datetime) -> tuple[str, ...]:
        """The secrets to sign with, newest first."""
        if self.previous is None or self.previous_until is None or now >= self.previous_until:
            return (self.current,)
        return (self.current, self.previous)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A tenant's receiver of events."""

    id: str
    tenant: str
    url: str
    event_types: tuple[str, ...]
    """Types that it gets; empty for every type."""
    description: str
    enabled: bool
    disabled_reason: str | None
    """Why the node disabled it; None when it is enabled, or was disabled by its tenant."""
    created_at: datetime
    secrets: SigningSecrets

    def wants(self, event_type: str) -> bool:
        """True when events of this type go to this endpoint."""
        return self.enabled and (not self.event_types or event_type in self.event_types)


class DeliveryState(StrEnum):
    """Where a delivery is. The last three are final until somebody replays it."""

    PENDING = "pending"
    DELIVERED = "delivered"
    """The receiver answered 2xx."""
    FAILED = "failed"
    """Every try failed, or the receiver said that it is gone."""
    DISCARDED = "discarded"
    """Its endpoint was deleted or disabled before it could be delivered."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: a status that the receiver answered with, or why there is none."""

    at: datetime
    duration_ms: float
    status: int | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one receiver: an endpoint, or the callback URL of a request."""

    id: str
    """Sent as `webhook-id`, the same on every try and replay."""
    tenant: str
    event_type: str
    endpoint_id: str | None
    callback_url: str | None = field(repr=False)
    body: str = field(repr=False)
    created_at: datetime
    state: DeliveryState = DeliveryState.PENDING
    attempts: tuple[Attempt, ...] = ()
    round_start: int = 0
    """Index of the first attempt since it was made or last replayed."""
    next_attempt_at: datetime | None = None
    reason: str | None = None
    """Why it is not delivered; None when it is, or may still be."""

    @property
    def num_tries(self) -> int:
        """Tries since it was made or last replayed."""
        return len(self.attempts) - self.round_start


@dataclass(frozen=True, slots=True)
class Lane:
    """Deliveries of one tenant to one host and port: what is paced, and what waits, on its own."""

    tenant: str
    authority: str

    @classmethod
    def of(cls, tenant: str, url: str) -> "Lane":
        """The lane of an accepted URL."""
        return cls(tenant, urlsplit(url).netloc)

    @classmethod
    def named(cls, name: str) -> "Lane":
        """The lane of that ``str``."""
        tenant, _, authority = name.partition(" ")
        return cls(tenant, authority)

    def __str__(self) -> str:
        return f"{self.tenant} {self.authority}"
