"""Webhooks of a node, wired together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from service.store import Store
from service.tasks import running
from service.webhooks.config import WebhooksConfig
from service.webhooks.couriers import CourierParts, Couriers
from service.webhooks.deliveries import Deliveries
from service.webhooks.destinations import DestinationRules, Destinations, SystemResolver
from service.webhooks.endpoints import Endpoints
from service.webhooks.hooks import Hooks
from service.webhooks.redis_queue import RedisQueue
from service.webhooks.redis_records import RedisEndpoints, RedisHooks
from service.webhooks.sender import open_sender


@dataclass(frozen=True, slots=True)
class Webhooks:
    """What routes, jobs and tuning use."""

    endpoints: Endpoints
    deliveries: Deliveries
    hooks: Hooks

    async def forget(self, tenant: str) -> None:
        """Delete a tenant's endpoints and hooks, when the tenant is deleted. What was on its way is discarded."""
        for endpoint in await self.endpoints.list(tenant):
            await self.endpoints.delete(tenant, endpoint.id)
        for hook in await self.hooks.list(tenant):
            await self.hooks.delete(tenant, hook.id)

    async def forget_unknown(self, is_known: Callable[[str], bool]) -> None:
        """Forget tenants that are gone: deleted while the store failed, or taken out of the configuration file."""
        for tenant in await self.endpoints.tenants():
            if not is_known(tenant):
                await self.forget(tenant)


@asynccontextmanager
async def open_webhooks(
    store: Store, config: WebhooksConfig, on_attempt: Callable[[str], None] = lambda outcome: None
) -> AsyncIterator[Webhooks]:
    """Webhooks on the node's store; events are sent for the length of the block.

    ``on_attempt`` is told each try's outcome: `delivered`, `retried`, `failed` or `discarded`.
    """
    resolver = SystemResolver()
    destinations = Destinations(DestinationRules.of(config), resolver)
    records = RedisEndpoints(store)
    queue = RedisQueue(store, retention_s=config.log_retention_s)
    endpoints = Endpoints(records, destinations, config)
    deliveries = Deliveries(queue, records, endpoints, config)
    try:
        async with open_sender(destinations, config) as sender:
            parts = CourierParts(queue, records, deliveries, destinations, sender, config)
            couriers = Couriers(parts, on_attempt=on_attempt)
            try:
                async with running(couriers.run(), name="couriers"):
                    yield Webhooks(endpoints, deliveries, Hooks(RedisHooks(store), config))
            finally:
                await couriers.close()
    finally:
        resolver.close()
