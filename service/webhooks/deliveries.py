"""Deliveries of events: queued here, sent by service.webhooks.couriers, seen and replayed here."""

import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.errors import Conflict, NotFound
from service.webhooks.config import WebhooksConfig
from service.webhooks.endpoints import Endpoints
from service.webhooks.events import EventType, compact, event_body, fits, sample, thin_body
from service.webhooks.ports import DeliveryQueue, EndpointRecords, LogPage
from service.webhooks.records import Clock, Delivery, DeliveryState, Endpoint, Lane, utc_now

ID_PATTERN = r"^msg_[0-9a-f]{32}$"
"""What a delivery's id looks like."""
_SCANNED = 1000
"""Deliveries looked at for a page of one state."""


@dataclass(frozen=True, slots=True)
class _Target:
    """One receiver of an event."""

    url: str
    endpoint_id: str | None

    @property
    def name(self) -> str:
        return self.endpoint_id or self.url


class Deliveries:
    """What is on its way to receivers, and what became of it. Methods raise StoreError."""

    def __init__(
        self,
        queue: DeliveryQueue,
        records: EndpointRecords,
        endpoints: Endpoints,
        config: WebhooksConfig,
        clock: Clock = utc_now,
    ) -> None:
        self._queue, self._records, self._endpoints = queue, records, endpoints
        self._config, self._clock = config, clock
        self._on_queued: Callable[[], None] = lambda: None

    def on_queued(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` whenever something was queued."""
        self._on_queued = wake

    async def check_callback(self, tenant: str, url: str) -> str:
        """The callback URL in its one spelling, if this tenant may name it. Ask before a job is accepted.

        Raises:
            DestinationRefused: it must not be called; the field is ``callback_url``.
        """
        return (await self._endpoints.check_callback(tenant, url)).url

    async def enqueue(
        self,
        tenant: str,
        event_type: str,
        data: Mapping[str, Any],
        *,
        endpoint_ids: Sequence[str] | None = None,
        callback_url: str | None = None,
        event_id: str | None = None,
    ) -> tuple[str, ...]:
        """Queue an event for the tenant's receivers, durably; returns the deliveries' ids.

        Args:
            data: JSON values. An event above 20 kB is sent with a link to ``data`` in its place.
            endpoint_ids: the endpoints to send it to; None takes every enabled one that wants the type, an empty list
                none.
            callback_url: one more receiver, signed with the tenant's callback secret.
            event_id: what names this event for ever. Queueing it again gives the same deliveries, and nothing is sent
                twice: a caller that may repeat itself after a crash passes one.

        Raises:
            DestinationRefused: the callback URL must not be called.
        """
        targets = [_Target(item.url, item.id) for item in await self._receivers(tenant, event_type, endpoint_ids)]
        if callback_url is not None:
            targets.append(_Target(self._endpoints.parse_callback(tenant, callback_url).url, None))
        event = event_id or secrets.token_hex(16)
        ids = [await self._add(tenant, event_type, data, target, event) for target in targets]
        if ids:
            self._on_queued()
        return tuple(ids)

    async def broadcast(self, event_type: str, data: Mapping[str, Any], *, event_id: str | None = None) -> None:
        """Queue an event of the node for every tenant that wants it."""
        for tenant in await self._records.tenants():
            await self.enqueue(tenant, event_type, data, event_id=event_id)

    async def test(self, tenant: str, endpoint_id: str) -> Delivery:
        """Queue a test event for one endpoint.

        Raises:
            NotFound: there is no such endpoint.
            Conflict: it is disabled.
        """
        endpoint = await self._endpoints.get(tenant, endpoint_id)
        if not endpoint.enabled:
            raise Conflict(f"the endpoint {endpoint_id} is disabled; enable it first")
        ids = await self.enqueue(tenant, EventType.TEST, sample(EventType.TEST), endpoint_ids=[endpoint_id])
        if not ids:
            raise NotFound(f"there is no endpoint {endpoint_id} any more")
        return await self.get(tenant, ids[0])

    async def get(self, tenant: str, delivery_id: str) -> Delivery:
        """One delivery with its attempts. Raises NotFound."""
        delivery = await self._queue.get(tenant, delivery_id)
        if delivery is None:
            raise NotFound(f"there is no delivery {delivery_id}, or it is no longer kept")
        return delivery

    async def page(self, tenant: str, *, cursor: str | None, limit: int, state: DeliveryState | None = None) -> LogPage:
        """A tenant's deliveries, newest first, of one state or of all.

        With a state a page may be shorter than ``limit`` though more follow: so many are looked at, then the caller
        asks again with ``next_cursor``.
        """
        if state is None:
            return await self._queue.page(tenant, cursor, limit)
        seen = await self._queue.page(tenant, cursor, _SCANNED)
        found = tuple(delivery for delivery in seen.deliveries if delivery.state is state)
        if len(found) > limit:
            return LogPage(found[:limit], found[limit - 1].id)
        return LogPage(found, seen.next_cursor)

    async def data(self, tenant: str, delivery_id: str) -> str:
        """The data of an event that was too large to be sent, as JSON. Raises NotFound."""
        data = await self._queue.data(tenant, delivery_id)
        if data is None:
            raise NotFound(f"there is no data of a delivery {delivery_id}, or it is no longer kept")
        return data

    async def replay(self, tenant: str, delivery_id: str) -> Delivery:
        """Send a delivery once more, from the first try on and under the same `webhook-id`.

        Raises:
            NotFound: there is no such delivery, or its endpoint was deleted.
            Conflict: it is still being tried, or its endpoint is disabled.
        """
        delivery = await self.get(tenant, delivery_id)
        if delivery.state is DeliveryState.PENDING:
            raise Conflict(f"the delivery {delivery_id} is still being tried")
        url = delivery.callback_url
        if delivery.endpoint_id is not None:
            endpoint = await self._endpoints.get(tenant, delivery.endpoint_id)
            if not endpoint.enabled:
                raise Conflict(f"the endpoint {endpoint.id} is disabled; enable it first")
            url = endpoint.url
        assert url is not None
        now = self._clock()
        again = replace(
            delivery,
            state=DeliveryState.PENDING,
            round_start=len(delivery.attempts),
            next_attempt_at=now,
            reason=None,
        )
        await self._queue.put(again, Lane.of(tenant, url), now)
        self._on_queued()
        return again

    async def _receivers(self, tenant: str, event_type: str, endpoint_ids: Sequence[str] | None) -> Iterable[Endpoint]:
        if endpoint_ids is not None and not endpoint_ids:
            return []
        endpoints = await self._records.list(tenant)
        if endpoint_ids is None:
            return [endpoint for endpoint in endpoints if endpoint.wants(event_type)]
        return [endpoint for endpoint in endpoints if endpoint.enabled and endpoint.id in endpoint_ids]

    async def _add(self, tenant: str, event_type: str, data: Mapping[str, Any], target: _Target, event: str) -> str:
        now = self._clock()
        delivery_id = f"msg_{_digest(tenant, event, target.name)}"
        delivery = Delivery(
            id=delivery_id,
            tenant=tenant,
            event_type=event_type,
            endpoint_id=target.endpoint_id,
            callback_url=None if target.endpoint_id is not None else target.url,
            body=await self._body(tenant, event_type, data, delivery_id),
            created_at=now,
            next_attempt_at=now,
        )
        await self._queue.add(delivery, Lane.of(tenant, target.url), now)
        return delivery_id

    async def _body(self, tenant: str, event_type: str, data: Mapping[str, Any], delivery_id: str) -> str:
        now = self._clock()
        body = event_body(event_type, now, data)
        if fits(body):
            return body
        await self._queue.keep_data(tenant, delivery_id, compact(data))
        base = (self._config.public_url or "").rstrip("/")
        return thin_body(event_type, now, data, f"{base}/v1/webhooks/deliveries/{delivery_id}/data")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
