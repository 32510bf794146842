"""What webhooks need of a store, as Protocols. `service.webhooks.redis_records` and `redis_queue` provide them; the
fakes are in `service.webhooks.fakes`.

Every method raises StoreError when the store cannot be reached.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.webhooks.hook import Hook
from service.webhooks.records import Delivery, Endpoint, Lane, SigningSecrets


class EndpointRecords(Protocol):
    """Endpoints of tenants, and the secrets that sign their callbacks."""

    async def add(self, endpoint: Endpoint, *, limit: int) -> bool:
        """Store a new endpoint; False when the tenant has ``limit`` already."""
        ...

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint | None: ...

    async def list(self, tenant: str) -> list[Endpoint]:
        """Oldest first."""
        ...

    async def change(self, tenant: str, endpoint_id: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint | None:
        """Replace an endpoint by what ``change`` makes of it, undisturbed by others; None when there is none."""
        ...

    async def remove(self, tenant: str, endpoint_id: str) -> bool:
        """False when there was none."""
        ...

    async def tenants(self) -> Sequence[str]:
        """Every tenant that has had an endpoint."""
        ...

    async def failing_since(self, tenant: str, endpoint_id: str, at: datetime) -> datetime:
        """Note a failure at ``at``; returns when the failures without a success between them began."""
        ...

    async def working(self, tenant: str, endpoint_id: str) -> None:
        """Note a success."""
        ...

    async def callback_secrets(self, tenant: str, new: SigningSecrets) -> SigningSecrets:
        """The secrets of the tenant's callbacks; ``new`` becomes them when it has none."""
        ...

    async def set_callback_secrets(self, tenant: str, secrets: SigningSecrets) -> None: ...


@dataclass(frozen=True, slots=True)
class Lease:
    """A claimed delivery: its sender's alone until ``until``, then somebody else's."""

    lane: Lane
    delivery_id: str
    until: datetime


@dataclass(frozen=True, slots=True)
class LogPage:
    """Part of a tenant's deliveries, newest first."""

    deliveries: tuple[Delivery, ...]
    next_cursor: str | None
    """None at the end."""


class DeliveryQueue(Protocol):
    """Deliveries: the log of all, and what of them is due when, by lane."""

    async def add(self, delivery: Delivery, lane: Lane, due: datetime) -> bool:
        """Store and queue a delivery in one step; False, and nothing changed, when its id is known."""
        ...

    async def get(self, tenant: str, delivery_id: str) -> Delivery | None: ...

    async def page(self, tenant: str, cursor: str | None, limit: int) -> LogPage:
        """The deliveries after ``cursor``, newest first; an unknown cursor gives an empty page."""
        ...

    async def first_due(self) -> datetime | None:
        """When the next delivery is due, or the next lease ends; None when nothing is queued."""
        ...

    async def lanes_due(self, now: datetime, skip: int = 0) -> Sequence[Lane]:
        """Some of the lanes with something due, the longest waiting first; empty after the last."""
        ...

    async def claim(self, lane: Lane, now: datetime, until: datetime, limit: int) -> list[Lease]:
        """Lease up to ``limit`` due deliveries of a lane. A lease that nobody settles makes its delivery due again."""
        ...

    async def settle(self, lease: Lease, delivery: Delivery | None, due: datetime | None) -> bool:
        """Store what became of a claimed delivery and queue it again for ``due``, or take it off the queue.

        None takes a delivery off that is no longer known. False, and nothing changed, when the lease ran out and
        another sender has it.
        """
        ...

    async def put(self, delivery: Delivery, lane: Lane, due: datetime) -> None:
        """Store a known delivery and queue it."""
        ...

    async def keep_data(self, tenant: str, delivery_id: str, data: str) -> None:
        """Keep an event's data, as JSON, that is too large to be sent."""
        ...

    async def data(self, tenant: str, delivery_id: str) -> str | None: ...


class HookRecords(Protocol):
    """Inbound hooks of tenants."""

    async def add(self, hook: Hook, *, limit: int) -> bool:
        """Store a new hook; False when the tenant has ``limit`` already."""
        ...

    async def find(self, hook_id: str) -> Hook | None:
        """The hook of that id, whichever tenant's it is."""
        ...

    async def list(self, tenant: str) -> list[Hook]:
        """Oldest first."""
        ...

    async def replace(self, hook: Hook) -> bool:
        """False when there is none of its id any more."""
        ...

    async def remove(self, tenant: str, hook_id: str) -> bool:
        """False when there was none."""
        ...
