"""How deliveries are carried out: retries, pauses, ends, crashes. The clock moves only when it is told to."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from standardwebhooks import Webhook

from agent.errors import StoreError
from service.webhooks.config import WebhooksConfig
from service.webhooks.destinations import Destination
from service.webhooks.endpoints import EndpointChange
from service.webhooks.fakes import FakeQueue
from service.webhooks.records import DeliveryState
from service.webhooks.schedule import WAITS_S
from service.webhooks.sender import FakeSender, Outcome
from tests.service.webhooks.rig import Rig

JOB = {"id": "job_1", "state": "succeeded"}
REFUSED = Outcome(1.0, 500)
DAY_S = 86_400


@dataclass
class HoldingSender(FakeSender):
    """Answers all but one host at once; that one when the gate opens."""

    held: str = "a.example.com"
    """How that host's name ends."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, destination: Destination, headers: Mapping[str, str], body: str) -> Outcome:
        outcome = await super().send(destination, headers, body)
        if destination.host.endswith(self.held):
            await self.opened.wait()
        return outcome

    def count(self, host: str) -> int:
        return [sent.destination.host for sent in self.sent].count(host)


@dataclass
class FlakyQueue(FakeQueue):
    """A queue whose store is away for the first look."""

    looks: int = 0

    async def first_due(self) -> datetime | None:
        self.looks += 1
        if self.looks == 1:
            raise StoreError("the store could not look for due deliveries")
        return await super().first_due()


async def enqueue(rig: Rig, callback_url: str | None = None) -> str:
    (sent_id,) = await rig.deliveries.enqueue("acme", "job.completed", JOB, callback_url=callback_url)
    return sent_id


async def try_until_the_end(rig: Rig) -> list[float]:
    """Turn after turn, as long as something is due within a day and a half; the seconds between sends."""
    began, times = rig.clock.now, []
    for _ in range(20):
        if await rig.turn():
            times.append((rig.clock.now - began).total_seconds())
        due = [at for queue in rig_queue(rig).due.values() for at in queue.values()]
        if not due:
            break
        rig.clock.now = min(due)
    return times


def rig_queue(rig: Rig) -> FakeQueue:
    assert isinstance(rig.queue, FakeQueue)
    return rig.queue


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_2xx_is_delivered(rig: Rig, status: int) -> None:
    """One try, and nothing left in the queue."""
    await rig.add_endpoint()
    sent_id = await enqueue(rig)
    rig.answer(Outcome(1.0, status))
    assert await rig.turn() == 1
    rig.clock.advance(2 * DAY_S)
    assert await rig.turn() == 0
    delivery = await rig.delivery(sent_id)
    assert (delivery.state, delivery.reason, delivery.next_attempt_at) == (DeliveryState.DELIVERED, None, None)
    assert [attempt.status for attempt in delivery.attempts] == [status]
    assert rig.outcomes == ["delivered"]


async def test_a_failing_receiver_is_tried_ten_times_under_one_id(rig: Rig) -> None:
    """The schedule with up to a tenth more each; id and body stay, the timestamp is of the try."""
    await rig.add_endpoint()
    sent_id = await enqueue(rig)
    rig.answer(*[REFUSED] * 10)
    times = await try_until_the_end(rig)
    waits = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) == 10
    assert all(low <= wait <= 1.1 * low for wait, low in zip(waits, WAITS_S, strict=True))
    assert {sent.headers["webhook-id"] for sent in rig.sent} == {sent_id}
    assert len({sent.body for sent in rig.sent}) == 1
    assert len({sent.headers["webhook-timestamp"] for sent in rig.sent}) == 10
    delivery = await rig.delivery(sent_id)
    assert (delivery.state, len(delivery.attempts)) == (DeliveryState.FAILED, 10)
    assert delivery.reason == "every try failed; the last: answered 500"
    assert rig.outcomes == ["retried"] * 9 + ["failed"]


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(1.0, 301),
        Outcome(1.0, 404),
        Outcome(1.0, error="timeout"),
        Outcome(1.0, error="connection_failed"),
        Outcome(1.0, error="destination_refused"),
    ],
)
async def test_everything_else_is_tried_again(rig: Rig, outcome: Outcome) -> None:
    """A redirect is a failure like any other; the log says why each try failed."""
    await rig.add_endpoint()
    sent_id = await enqueue(rig)
    rig.answer(outcome)
    await rig.turn()
    delivery = await rig.delivery(sent_id)
    assert delivery.state is DeliveryState.PENDING
    assert delivery.next_attempt_at is not None
    assert timedelta(seconds=5) <= delivery.next_attempt_at - rig.clock.now <= timedelta(seconds=5.5)
    assert (delivery.attempts[0].status, delivery.attempts[0].error) == (outcome.status, outcome.error)
    rig.clock.advance(6)
    await rig.turn()
    assert (await rig.delivery(sent_id)).state is DeliveryState.DELIVERED


async def test_retry_after_delays_the_delivery_and_holds_its_lane(rig: Rig) -> None:
    """The next event to the same host waits too; another host's does not."""
    first, second = await rig.add_endpoint("a"), await rig.add_endpoint("b")
    held = (await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[first]))[0]
    rig.answer(Outcome(1.0, 429, retry_after="20"))
    await rig.turn()
    await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[first])
    await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[second])
    rig.clock.advance(19)
    await rig.turn()
    assert [sent.destination.host for sent in rig.sent] == ["a.example.com", "b.example.com"]
    rig.clock.advance(1)
    await rig.turn()
    assert len(rig.sent) == 4
    assert (await rig.delivery(held)).state is DeliveryState.DELIVERED


async def test_410_disables_the_endpoint_with_an_event(rig: Rig) -> None:
    """No further try; what else was on its way there is discarded; the tenant's other endpoint is told."""
    gone, other = await rig.add_endpoint("a", "job.completed"), await rig.add_endpoint("b", "webhook.endpoint.disabled")
    first, second = await enqueue(rig), await enqueue(rig)
    rig.answer(Outcome(1.0, 410))
    rig_queue(rig).due[next(iter(rig_queue(rig).due))][second] += timedelta(seconds=1)
    await rig.turn()
    endpoint = await rig.endpoints.get("acme", gone)
    assert (endpoint.enabled, endpoint.disabled_reason) == (False, "it answered 410 Gone")
    rig.clock.advance(1)
    await rig.turn()
    assert (await rig.delivery(first)).reason == "the receiver is gone (410)"
    discarded = await rig.delivery(second)
    assert (discarded.state, discarded.reason) == (DeliveryState.DISCARDED, "its endpoint is disabled")
    assert [sent.destination.host for sent in rig.sent] == ["a.example.com", "b.example.com"]
    assert f'"id":"{gone}"' in rig.sent[1].body
    assert (await rig.endpoints.get("acme", other)).enabled


async def test_an_endpoint_that_fails_for_days_is_disabled(rig: Rig) -> None:
    """After a delivery's ten tries without any success in between; enabling it gives it a fresh start."""
    endpoint = await rig.add_endpoint()
    sent_id = await enqueue(rig)
    rig.answer(*[REFUSED] * 10)
    await try_until_the_end(rig)
    disabled = await rig.endpoints.get("acme", endpoint)
    assert (disabled.enabled, disabled.disabled_reason) == (False, "it took nothing since 2026-01-01 00:00 UTC")
    enabled = await rig.endpoints.update("acme", endpoint, EndpointChange(enabled=True))
    assert (enabled.enabled, enabled.disabled_reason) == (True, None)
    await rig.deliveries.replay("acme", sent_id)
    await rig.turn()
    assert (await rig.delivery(sent_id)).state is DeliveryState.DELIVERED


async def test_an_endpoint_that_takes_other_events_stays_enabled(rig: Rig) -> None:
    """One event that its receiver never takes does not cost it the others."""
    endpoint = await rig.add_endpoint()
    sent_id = await enqueue(rig)
    rig.answer(*[REFUSED] * 9)
    for wait_s in (0, *WAITS_S[:8]):
        rig.clock.advance(1.1 * wait_s)
        await rig.turn()
    await enqueue(rig)
    await rig.turn()
    rig.clock.advance(1.1 * WAITS_S[8])
    rig.answer(REFUSED)
    await rig.turn()
    assert (await rig.delivery(sent_id)).state is DeliveryState.FAILED
    assert (await rig.endpoints.get("acme", endpoint)).enabled


async def test_a_callback_is_signed_with_the_tenants_secret_and_ends_at_410(rig: Rig) -> None:
    """There is no endpoint to disable."""
    secret = (await rig.endpoints.rotate_callback_secret("acme")).current
    sent_id = await enqueue(rig, callback_url="https://hooks.example.com/resume")
    rig.answer(Outcome(1.0, 410))
    await rig.turn()
    assert (await rig.delivery(sent_id)).state is DeliveryState.FAILED
    expected = Webhook(secret).sign(sent_id, rig.clock.now, rig.sent[0].body)
    assert expected in rig.sent[0].headers["webhook-signature"].split(" ")


async def test_a_crash_in_the_middle_of_a_send_sends_the_same_event_again(rig: Rig) -> None:
    """The process dies after the receiver was called and before the result was stored: the lease ends, 45 s later."""
    await rig.add_endpoint()
    sent_id = await enqueue(rig)
    assert isinstance(rig.sender, FakeSender)
    rig.sender.gate = asyncio.Event()
    await rig.couriers.turn()
    await asyncio.sleep(0.01)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    rig.sender.gate = None
    rig.couriers = rig.new_couriers()
    rig.clock.advance(44)
    assert await rig.turn() == 0
    rig.clock.advance(1)
    assert await rig.turn() == 1
    assert [sent.headers["webhook-id"] for sent in rig.sent] == [sent_id, sent_id]
    assert (await rig.delivery(sent_id)).state is DeliveryState.DELIVERED


async def test_a_slow_receiver_holds_nobody_else(rig: Rig) -> None:
    """Four of its twenty deliveries are in flight and stay there; the other host's twenty go out meanwhile."""
    slow, quick = await rig.add_endpoint("a"), await rig.add_endpoint("b")
    for endpoint in (slow, quick):
        for _ in range(20):
            await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[endpoint])
    rig.sender = sender = HoldingSender()
    rig.couriers = rig.new_couriers()
    for _ in range(6):
        await rig.couriers.turn()
        await asyncio.sleep(0.01)
    assert (sender.count("a.example.com"), sender.count("b.example.com")) == (4, 20)
    sender.opened.set()
    await rig.couriers.idle()
    while await rig.turn():
        pass
    assert sender.count("a.example.com") == 20


async def test_a_host_gets_at_most_thirty_in_a_second() -> None:
    """Of 50 due at once, 30 go out at once and the rest as the second passes."""
    rig = Rig(WebhooksConfig(concurrency_per_destination=100, concurrency_per_tenant=100))
    endpoint = await rig.add_endpoint()
    for _ in range(50):
        await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[endpoint])
    counts = []
    for _ in range(3):
        counts.append(await rig.turn())
        rig.clock.advance(0.5)
    # A bucket of 30, refilled by 15 in half a second: 30, 15, and the last 5.
    assert counts == [30, 15, 5]


async def test_a_tenant_with_many_hanging_receivers_holds_no_other_tenant() -> None:
    """150 hosts that never answer, one event for each: 32 are in flight; another tenant's event goes out at once."""
    names = {f"h{n}.example.com": [["93.184.216.34"]] for n in range(150)}
    sender = HoldingSender(held=".example.com")
    rig = Rig(names={**names, "b.quick.example": [["93.184.216.34"]]}, sender=sender)
    for host in names:
        await rig.deliveries.enqueue("acme", "job.completed", JOB, callback_url=f"https://{host}/")
    await rig.couriers.turn()
    rig.clock.advance(1)
    await rig.deliveries.enqueue("globex", "job.completed", JOB, callback_url="https://b.quick.example/")
    await rig.couriers.turn()
    await asyncio.sleep(0.01)
    assert sender.count("b.quick.example") == 1
    assert len(sender.sent) == 32 + 1
    sender.opened.set()
    await rig.couriers.idle()


async def test_a_moved_endpoint_gets_what_was_queued_for_it(rig: Rig) -> None:
    """The address of today counts, with its own lane."""
    endpoint = await rig.add_endpoint("a")
    sent_id = await enqueue(rig)
    await rig.endpoints.update("acme", endpoint, EndpointChange(url="https://b.example.com/new"))
    await rig.turn()
    await rig.turn()
    assert [sent.destination.url for sent in rig.sent] == ["https://b.example.com/new"]
    assert (await rig.delivery(sent_id)).state is DeliveryState.DELIVERED
    assert not any(rig_queue(rig).due.values())


async def test_what_was_for_a_deleted_endpoint_is_discarded(rig: Rig) -> None:
    """Nothing is sent."""
    endpoint = await rig.add_endpoint()
    sent_id = await enqueue(rig)
    await rig.endpoints.delete("acme", endpoint)
    await rig.turn()
    assert rig.sent == []
    assert (await rig.delivery(sent_id)).reason == "its endpoint was deleted"
    assert rig.outcomes == ["discarded"]


async def test_a_url_that_the_rules_no_longer_allow_is_not_called(rig: Rig) -> None:
    """An operator who takes a permission back need not hunt for old endpoints."""
    await rig.add_endpoint()
    sent_id = await enqueue(rig)
    stricter = Rig(
        WebhooksConfig(allowed_ports=(8443,)), clock=rig.clock, records=rig.records, queue=rig.queue, sender=rig.sender
    )
    await stricter.turn()
    assert rig.sent == []
    assert (await rig.delivery(sent_id)).attempts[0].error == "destination_refused"


async def test_a_store_that_is_away_ends_nothing() -> None:
    """The loop goes on, and sends once the store is back; being told of an event wakes it at once."""

    rig = Rig(queue=FlakyQueue())
    await rig.add_endpoint()
    running = asyncio.create_task(rig.couriers.run())
    await asyncio.sleep(0.02)
    assert not running.done()
    assert rig.sent == []
    await enqueue(rig)
    async with asyncio.timeout(1):
        while not rig.sent:  # noqa: ASYNC110 - a fake sender sets no event
            await asyncio.sleep(0.01)
    running.cancel()
    await rig.couriers.close()


async def test_closing_waits_for_what_is_being_sent(rig: Rig) -> None:
    """A send in flight at SIGTERM is settled, not repeated after the restart."""
    await rig.add_endpoint()
    sent_id = await enqueue(rig)
    assert isinstance(rig.sender, FakeSender)
    rig.sender.gate = asyncio.Event()
    await rig.couriers.turn()
    asyncio.get_running_loop().call_later(0.05, rig.sender.gate.set)
    await rig.couriers.close()
    assert (await rig.delivery(sent_id)).state is DeliveryState.DELIVERED


@dataclass
class WatchedQueue(FakeQueue):
    """A queue that counts how often it was looked at."""

    looks: int = 0

    async def first_due(self) -> datetime | None:
        self.looks += 1
        return await super().first_due()


async def test_an_empty_queue_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 20 ms between looks at a receiver without room and a minute between those at nothing, 0.2 s are one look."""
    monkeypatch.setattr("service.webhooks.couriers._POLL_S", 0.02)
    monkeypatch.setattr("service.webhooks.couriers._IDLE_POLL_S", 60.0)
    queue = WatchedQueue()
    rig = Rig(queue=queue)
    running = asyncio.create_task(rig.couriers.run())
    await asyncio.sleep(0.2)
    running.cancel()
    assert queue.looks == 1


async def test_what_is_due_later_is_sent_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody wakes the couriers for a second try: they look again when it is due, after 50 ms of an idle minute."""
    monkeypatch.setattr("service.webhooks.couriers._IDLE_POLL_S", 60.0)
    queue = FakeQueue()
    rig = Rig(queue=queue)
    await rig.add_endpoint()
    sent_id = await enqueue(rig)
    (lane,) = queue.due
    queue.due[lane][sent_id] += timedelta(seconds=0.05)
    running = asyncio.create_task(rig.couriers.run())
    await asyncio.sleep(0)
    rig.clock.now += timedelta(seconds=0.05)
    async with asyncio.timeout(1):
        while not rig.sent:  # noqa: ASYNC110 - a fake sender sets no event
            await asyncio.sleep(0.01)
    running.cancel()
    await rig.couriers.close()
