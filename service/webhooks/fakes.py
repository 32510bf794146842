"""Fakes of `service.webhooks.ports`: everything in memory, nothing expires. FakeResolver and FakeSender stand beside
what they replace."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from service.webhooks.assembly import Webhooks
from service.webhooks.config import WebhooksConfig
from service.webhooks.deliveries import Deliveries
from service.webhooks.destinations import DestinationRules, Destinations, FakeResolver
from service.webhooks.endpoints import Endpoints
from service.webhooks.hook import Hook
from service.webhooks.hooks import Hooks
from service.webhooks.ports import Lease, LogPage
from service.webhooks.records import Clock, Delivery, Endpoint, Lane, SigningSecrets, utc_now


@dataclass
class FakeClock:
    """A time that moves only when it is told to."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class FakeEndpoints:
    """EndpointRecords in memory."""

    endpoints: dict[tuple[str, str], Endpoint] = field(default_factory=dict)
    failing: dict[tuple[str, str], datetime] = field(default_factory=dict)
    secrets: dict[str, SigningSecrets] = field(default_factory=dict)

    async def add(self, endpoint: Endpoint, *, limit: int) -> bool:
        if len(await self.list(endpoint.tenant)) >= limit:
            return False
        self.endpoints[endpoint.tenant, endpoint.id] = endpoint
        return True

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        return self.endpoints.get((tenant, endpoint_id))

    async def list(self, tenant: str) -> list[Endpoint]:
        return [endpoint for endpoint in self.endpoints.values() if endpoint.tenant == tenant]

    async def change(self, tenant: str, endpoint_id: str, change: Callable[[Endpoint], Endpoint]) -> Endpoint | None:
        endpoint = await self.get(tenant, endpoint_id)
        if endpoint is None:
            return None
        self.endpoints[tenant, endpoint_id] = change(endpoint)
        return self.endpoints[tenant, endpoint_id]

    async def remove(self, tenant: str, endpoint_id: str) -> bool:
        self.failing.pop((tenant, endpoint_id), None)
        return self.endpoints.pop((tenant, endpoint_id), None) is not None

    async def tenants(self) -> Sequence[str]:
        return sorted({tenant for tenant, _ in self.endpoints})

    async def failing_since(self, tenant: str, endpoint_id: str, at: datetime) -> datetime:
        return self.failing.setdefault((tenant, endpoint_id), at)

    async def working(self, tenant: str, endpoint_id: str) -> None:
        self.failing.pop((tenant, endpoint_id), None)

    async def callback_secrets(self, tenant: str, new: SigningSecrets) -> SigningSecrets:
        return self.secrets.setdefault(tenant, new)

    async def set_callback_secrets(self, tenant: str, secrets: SigningSecrets) -> None:
        self.secrets[tenant] = secrets


@dataclass
class FakeQueue:
    """DeliveryQueue in memory."""

    log: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    """In the order of addition."""
    due: dict[Lane, dict[str, datetime]] = field(default_factory=dict)
    kept_data: dict[tuple[str, str], str] = field(default_factory=dict)

    async def add(self, delivery: Delivery, lane: Lane, due: datetime) -> bool:
        if (delivery.tenant, delivery.id) in self.log:
            return False
        await self.put(delivery, lane, due)
        return True

    async def get(self, tenant: str, delivery_id: str) -> Delivery | None:
        return self.log.get((tenant, delivery_id))

    async def page(self, tenant: str, cursor: str | None, limit: int) -> LogPage:
        found = [delivery for (owner, _), delivery in reversed(self.log.items()) if owner == tenant]
        ids = [delivery.id for delivery in found]
        if cursor is not None and cursor not in ids:
            return LogPage((), None)
        start = 0 if cursor is None else ids.index(cursor) + 1
        page = tuple(found[start : start + limit])
        return LogPage(page, page[-1].id if start + limit < len(found) else None)

    async def first_due(self) -> datetime | None:
        return min((at for queue in self.due.values() for at in queue.values()), default=None)

    async def lanes_due(self, now: datetime, skip: int = 0) -> Sequence[Lane]:
        first = {lane: min(queue.values()) for lane, queue in self.due.items() if queue}
        return sorted((lane for lane in first if first[lane] <= now), key=lambda lane: first[lane])[skip:]

    async def claim(self, lane: Lane, now: datetime, until: datetime, limit: int) -> list[Lease]:
        queue = self.due.get(lane, {})
        ids = sorted((item for item in queue if queue[item] <= now), key=lambda item: queue[item])[:limit]
        queue.update(dict.fromkeys(ids, until))
        return [Lease(lane, delivery_id, until) for delivery_id in ids]

    async def settle(self, lease: Lease, delivery: Delivery | None, due: datetime | None) -> bool:
        queue = self.due.get(lease.lane, {})
        if queue.get(lease.delivery_id) != lease.until:
            return False
        if delivery is not None:
            self.log[delivery.tenant, delivery.id] = delivery
        if due is None:
            del queue[lease.delivery_id]
        else:
            queue[lease.delivery_id] = due
        return True

    async def put(self, delivery: Delivery, lane: Lane, due: datetime) -> None:
        self.log[delivery.tenant, delivery.id] = delivery
        self.due.setdefault(lane, {})[delivery.id] = due

    async def keep_data(self, tenant: str, delivery_id: str, data: str) -> None:
        self.kept_data[tenant, delivery_id] = data

    async def data(self, tenant: str, delivery_id: str) -> str | None:
        return self.kept_data.get((tenant, delivery_id))


@dataclass
class FakeHooks:
    """HookRecords in memory."""

    hooks: dict[str, Hook] = field(default_factory=dict)

    async def add(self, hook: Hook, *, limit: int) -> bool:
        if len(await self.list(hook.tenant)) >= limit:
            return False
        self.hooks[hook.id] = hook
        return True

    async def find(self, hook_id: str) -> Hook | None:
        return self.hooks.get(hook_id)

    async def list(self, tenant: str) -> list[Hook]:
        return [hook for hook in self.hooks.values() if hook.tenant == tenant]

    async def replace(self, hook: Hook) -> bool:
        if hook.id not in self.hooks:
            return False
        self.hooks[hook.id] = hook
        return True

    async def remove(self, tenant: str, hook_id: str) -> bool:
        if hook_id not in self.hooks or self.hooks[hook_id].tenant != tenant:
            return False
        del self.hooks[hook_id]
        return True


FAKE_HOST = "hooks.example.com"
"""The one name that the fake webhooks' resolver knows."""


def fake_webhooks(config: WebhooksConfig | None = None, clock: Clock = utc_now) -> Webhooks:
    """Webhooks in memory; nothing is sent."""
    config = config or WebhooksConfig()
    destinations = Destinations(DestinationRules.of(config), FakeResolver({FAKE_HOST: [["93.184.216.34"]]}))
    records = FakeEndpoints()
    endpoints = Endpoints(records, destinations, config, clock)
    deliveries = Deliveries(FakeQueue(), records, endpoints, config, clock)
    return Webhooks(endpoints, deliveries, Hooks(FakeHooks(), config, clock))
