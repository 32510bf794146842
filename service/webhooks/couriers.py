"""Carries deliveries out: claims what is due and has room, sends it, and stores what became of it.

    turn: lanes that are due ─► room? ─► lease
                                          └─► task: load ─► sign ─► send ─► settle: delivered, again later, given up

A crash between lease and settle costs nothing but time: the lease ends, and the same event goes out again under the
same `webhook-id`. Receivers get every event at least once.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from agent.errors import DestinationRefused, StoreError
from service.webhooks.config import WebhooksConfig
from service.webhooks.deliveries import Deliveries
from service.webhooks.destinations import Destination, Destinations
from service.webhooks.events import EventType
from service.webhooks.pacing import DestinationPacing
from service.webhooks.ports import DeliveryQueue, EndpointRecords, Lease
from service.webhooks.records import (
    Attempt,
    Clock,
    Delivery,
    DeliveryState,
    Endpoint,
    Lane,
    SigningSecrets,
    utc_now,
)
from service.webhooks.schedule import GONE, next_try, patience_s
from service.webhooks.sender import Outcome, Sender
from service.webhooks.signing import new_secret, signature_headers

log = structlog.get_logger(__name__)

_POLL_S = 0.25
"""Until the next look while something is due and its receiver has no room."""
_IDLE_POLL_S = 2.0
"""Until the next look while nothing is due: other processes may queue deliveries, or leave some behind."""
_STORE_DOWN_S = 2.0
_LEASE_SLACK_S = 30.0
_FINISH_S = 5.0
_KEPT_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class CourierParts:
    """What couriers work with."""

    queue: DeliveryQueue
    endpoints: EndpointRecords
    deliveries: Deliveries
    destinations: Destinations
    sender: Sender
    config: WebhooksConfig


@dataclass(frozen=True, slots=True)
class _Receiver:
    """Where a delivery goes at this moment, and who signs it."""

    url: str
    secrets: SigningSecrets


class Couriers:
    """Sends what is due, until it is closed."""

    def __init__(
        self,
        parts: CourierParts,
        *,
        clock: Clock = utc_now,
        rng: random.Random | None = None,
        on_attempt: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        """``on_attempt`` is told each try's outcome: `delivered`, `retried`, `failed` or `discarded`."""
        self._parts, self._clock = parts, clock
        self._rng = rng or random.Random()
        self._on_attempt = on_attempt
        self._pacing = DestinationPacing(parts.config)
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._lease = timedelta(seconds=parts.config.timeout_s + _LEASE_SLACK_S)
        parts.deliveries.on_queued(self._wake.set)

    async def run(self) -> None:
        """Send for ever; a store that does not answer is asked again later."""
        while True:
            self._wake.clear()
            try:
                wait_s = await self._until_due_s()
                if wait_s <= 0:
                    await self.turn()
                    wait_s = _POLL_S
            except StoreError as error:
                log.warning("deliveries_not_read", reason=str(error))
                wait_s = _STORE_DOWN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    async def _until_due_s(self) -> float:
        first = await self._parts.queue.first_due()
        return _IDLE_POLL_S if first is None else min((first - self._clock()).total_seconds(), _IDLE_POLL_S)

    async def turn(self) -> int:
        """Begin every delivery that is due and has room; returns how many.

        Raises:
            StoreError: the store could not be reached.
        """
        now = self._clock()
        num_begun = num_seen = 0
        while lanes := await self._parts.queue.lanes_due(now, num_seen):
            num_seen += len(lanes)
            for lane in lanes:
                num_begun += await self._claim(lane, now)
        return num_begun

    async def idle(self) -> None:
        """Return when nothing is being sent."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, *, finish_s: float = _FINISH_S) -> None:
        """Let what is being sent finish for so long; what does not is sent again when its lease has ended."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=finish_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _claim(self, lane: Lane, now: datetime) -> int:
        room = self._pacing.room(lane, now)
        if room == 0:
            return 0
        leases = await self._parts.queue.claim(lane, now, now + self._lease, room)
        for lease in leases:
            self._begin(lease, now)
        return len(leases)

    def _begin(self, lease: Lease, now: datetime) -> None:
        self._pacing.begin(lease.lane, now)
        task = asyncio.create_task(self._carry_out(lease))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, lease.lane))

    def _ended(self, task: "asyncio.Task[None]", lane: Lane) -> None:
        self._tasks.discard(task)
        self._pacing.end(lane)
        self._wake.set()

    async def _carry_out(self, lease: Lease) -> None:
        """The boundary that outlives whatever one delivery raises; its lease ends, and it is tried again."""
        with structlog.contextvars.bound_contextvars(tenant=lease.lane.tenant, delivery=lease.delivery_id):
            try:
                await self._deliver(lease)
            except StoreError as error:
                log.warning("delivery_not_settled", reason=str(error))
            except Exception as error:  # noqa: BLE001  # one delivery must not end the others
                log.error("delivery_broke", error=type(error).__name__)

    async def _deliver(self, lease: Lease) -> None:
        delivery = await self._parts.queue.get(lease.lane.tenant, lease.delivery_id)
        if delivery is None or delivery.state is not DeliveryState.PENDING:
            await self._parts.queue.settle(lease, None, None)
            return
        receiver = await self._receiver(delivery)
        if isinstance(receiver, str):
            await self._discard(lease, delivery, receiver)
            return
        if (lane := Lane.of(delivery.tenant, receiver.url)) != lease.lane:
            await self._parts.queue.put(delivery, lane, self._clock())
            await self._parts.queue.settle(lease, None, None)
            self._wake.set()
            return
        began = self._clock()
        outcome = await self._send(delivery, receiver, began)
        await self._settle(lease, delivery, outcome, began)

    async def _receiver(self, delivery: Delivery) -> _Receiver | str:
        """The receiver, or the reason why there is none any more."""
        endpoints = self._parts.endpoints
        if delivery.callback_url is not None:
            secrets = await endpoints.callback_secrets(delivery.tenant, SigningSecrets(new_secret()))
            return _Receiver(delivery.callback_url, secrets)
        assert delivery.endpoint_id is not None
        endpoint = await endpoints.get(delivery.tenant, delivery.endpoint_id)
        if endpoint is None:
            return "its endpoint was deleted"
        if not endpoint.enabled:
            return "its endpoint is disabled"
        return _Receiver(endpoint.url, endpoint.secrets)

    async def _send(self, delivery: Delivery, receiver: _Receiver, now: datetime) -> Outcome:
        destination = self._destination(receiver.url)
        if destination is None:
            return Outcome(0.0, error="destination_refused")
        headers = signature_headers(receiver.secrets, delivery.id, delivery.body, now)
        return await self._parts.sender.send(destination, headers, delivery.body)

    def _destination(self, url: str) -> Destination | None:
        """The parts of a URL that was accepted once, under the rules of today."""
        try:
            return self._parts.destinations.rules.parse(url)
        except DestinationRefused:
            return None

    async def _discard(self, lease: Lease, delivery: Delivery, reason: str) -> None:
        ended = replace(delivery, state=DeliveryState.DISCARDED, next_attempt_at=None, reason=reason)
        if await self._parts.queue.settle(lease, ended, None):
            self._on_attempt("discarded")

    async def _settle(self, lease: Lease, delivery: Delivery, outcome: Outcome, began: datetime) -> None:
        now = self._clock()
        tried = _tried(delivery, outcome, began)
        if (patience := patience_s(outcome, now)) is not None:
            self._pacing.hold(lease.lane, now, patience)
        if outcome.delivered:
            settled, due = replace(tried, state=DeliveryState.DELIVERED, next_attempt_at=None, reason=None), None
        elif (due := next_try(tried.num_tries, outcome, now, self._rng)) is not None:
            settled = replace(tried, next_attempt_at=due)
        else:
            settled = replace(tried, state=DeliveryState.FAILED, next_attempt_at=None, reason=_reason(outcome))
        if not await self._parts.queue.settle(lease, settled, due):
            log.warning("delivery_lease_lost")
            return
        outcome_name = "retried" if settled.state is DeliveryState.PENDING else settled.state.value
        self._on_attempt(outcome_name)
        log.info(
            "webhook_attempted",
            event_type=delivery.event_type,
            outcome=outcome_name,
            status=outcome.status,
            error=outcome.error,
            tries=tried.num_tries,
        )
        if delivery.endpoint_id is not None:
            await self._judge(delivery.endpoint_id, settled, outcome)

    async def _judge(self, endpoint_id: str, delivery: Delivery, outcome: Outcome) -> None:
        """Disable an endpoint that is gone, or that took nothing during all tries of a delivery."""
        endpoints = self._parts.endpoints
        if outcome.delivered:
            await endpoints.working(delivery.tenant, endpoint_id)
            return
        failing_since = await endpoints.failing_since(delivery.tenant, endpoint_id, delivery.attempts[-1].at)
        if outcome.status == GONE:
            await self._disable(delivery.tenant, endpoint_id, "it answered 410 Gone")
        elif delivery.state is DeliveryState.FAILED and failing_since <= _round(delivery)[0].at:
            await self._disable(
                delivery.tenant, endpoint_id, f"it took nothing since {failing_since:%Y-%m-%d %H:%M} UTC"
            )

    async def _disable(self, tenant: str, endpoint_id: str, reason: str) -> None:
        def disabled(endpoint: Endpoint) -> Endpoint:
            return replace(endpoint, enabled=False, disabled_reason=reason) if endpoint.enabled else endpoint

        endpoint = await self._parts.endpoints.change(tenant, endpoint_id, disabled)
        if endpoint is None or endpoint.disabled_reason != reason:
            return
        log.warning("webhook_endpoint_disabled", endpoint=endpoint_id, reason=reason)
        data = {"id": endpoint_id, "reason": reason}
        await self._parts.deliveries.enqueue(tenant, EventType.ENDPOINT_DISABLED, data)


def _tried(delivery: Delivery, outcome: Outcome, at: datetime) -> Delivery:
    """The delivery with one more attempt; the oldest of an earlier round go when there are too many."""
    attempt = Attempt(at, round(outcome.duration_ms, 1), outcome.status, outcome.error)
    attempts = (*delivery.attempts, attempt)
    surplus = min(max(len(attempts) - _KEPT_ATTEMPTS, 0), delivery.round_start)
    return replace(delivery, attempts=attempts[surplus:], round_start=delivery.round_start - surplus)


def _round(delivery: Delivery) -> tuple[Attempt, ...]:
    return delivery.attempts[delivery.round_start :]


def _reason(outcome: Outcome) -> str:
    last = f"answered {outcome.status}" if outcome.status is not None else str(outcome.error)
    return "the receiver is gone (410)" if outcome.status == GONE else f"every try failed; the last: {last}"
