"""From an event to a receiver over a real store and real sockets, verified with standardwebhooks as receivers do it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from agent.errors import NotFound
from service.config import StoreConfig
from service.store import Store, open_store
from service.webhooks.assembly import Webhooks, open_webhooks
from service.webhooks.config import WebhooksConfig
from service.webhooks.couriers import CourierParts, Couriers
from service.webhooks.deliveries import Deliveries
from service.webhooks.destinations import DestinationRules, Destinations, SystemResolver
from service.webhooks.endpoints import Endpoints
from service.webhooks.hook import Check
from service.webhooks.hooks import Hooks
from service.webhooks.records import Clock, DeliveryState
from service.webhooks.redis_queue import RedisQueue
from service.webhooks.redis_records import RedisEndpoints, RedisHooks
from service.webhooks.sender import open_sender
from tests.service.webhooks.receiver import Receiver, answer, receiving

JOB = {"id": "job_1", "state": "succeeded", "text": "Grüße"}
ROOT = Path(__file__).parents[3]


def config_for(*ports: int) -> WebhooksConfig:
    return WebhooksConfig(allow_http=True, allowed_ports=ports, allowed_networks=("127.0.0.0/8",))


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens behind a socket
            await asyncio.sleep(0.01)


class LaterClock:
    """The real time, and more."""

    ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@asynccontextmanager
async def sending(store: Store, config: WebhooksConfig, clock: Clock) -> AsyncIterator[tuple[Webhooks, Couriers]]:
    """What `open_webhooks` makes, with a clock of the test's own and couriers that the test moves."""
    resolver = SystemResolver()
    destinations = Destinations(DestinationRules.of(config), resolver)
    records, queue = RedisEndpoints(store), RedisQueue(store, retention_s=config.log_retention_s)
    endpoints = Endpoints(records, destinations, config, clock)
    deliveries = Deliveries(queue, records, endpoints, config, clock)
    async with open_sender(destinations, config) as sender:
        parts = CourierParts(queue, records, deliveries, destinations, sender, config)
        yield Webhooks(endpoints, deliveries, Hooks(RedisHooks(store), config)), Couriers(parts, clock=clock)
    resolver.close()


async def test_an_event_arrives_and_verifies(any_store: Store) -> None:
    """Within a second of being queued, though the loop may have been asleep; the log says delivered."""
    receiver = Receiver()
    async with receiving(receiver) as port, open_webhooks(any_store, config_for(port)) as webhooks:
        endpoint = await webhooks.endpoints.create("acme", f"http://localhost:{port}/in", ["job.completed"], "")
        await asyncio.sleep(0.3)
        (sent_id,) = await webhooks.deliveries.enqueue("acme", "job.completed", JOB)
        await until(lambda: receiver.bodies)
        event = Webhook(endpoint.secrets.current).verify(receiver.bodies[0], receiver.headers[0])
        assert (event["type"], event["data"]) == ("job.completed", JOB)
        assert receiver.headers[0]["webhook-id"] == sent_id
        await asyncio.sleep(0.1)
        delivery = await webhooks.deliveries.get("acme", sent_id)
        assert (delivery.state, delivery.attempts[0].status) == (DeliveryState.DELIVERED, 200)


async def test_a_rotation_is_verified_with_either_secret_during_the_overlap(store: Store) -> None:
    """The receiver changes over when it likes; with an overlap of none the old secret fails at once."""
    receiver = Receiver()
    async with receiving(receiver) as port:
        for overlap_s in (3600.0, 0.0):
            config = config_for(port).model_copy(update={"rotation_overlap_s": overlap_s})
            async with open_webhooks(store, config) as webhooks:
                old = await webhooks.endpoints.create("acme", f"http://localhost:{port}/{overlap_s}", [], "")
                new = await webhooks.endpoints.rotate("acme", old.id)
                await webhooks.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[old.id])
                seen = len(receiver.bodies)
                await until(lambda seen=seen: len(receiver.bodies) > seen)  # type: ignore[misc]
            body, headers = receiver.bodies[-1], receiver.headers[-1]
            Webhook(new.secrets.current).verify(body, headers)
            if overlap_s:
                Webhook(old.secrets.current).verify(body, headers)
            else:
                with pytest.raises(WebhookVerificationError):
                    Webhook(old.secrets.current).verify(body, headers)


async def test_retries_over_real_sockets_keep_id_and_body(store: Store) -> None:
    """Two failures and a redirect, then success: four tries at the schedule's times, one id, one body."""
    receiver, clock = Receiver(), LaterClock()
    async with receiving(receiver) as port, sending(store, config_for(port), clock) as (webhooks, couriers):
        await webhooks.endpoints.create("acme", f"http://localhost:{port}/", [], "")
        (sent_id,) = await webhooks.deliveries.enqueue("acme", "job.completed", JOB)
        elsewhere = f"Location: http://localhost:{port}/elsewhere"
        for reply, wait_s in ((answer(500), 0), (answer(302, elsewhere), 6), (answer(404), 340), (answer(200), 2000)):
            receiver.answer = reply
            clock.ahead += timedelta(seconds=wait_s)
            assert await couriers.turn() == 1
            await couriers.idle()
        delivery = await webhooks.deliveries.get("acme", sent_id)
    assert [attempt.status for attempt in delivery.attempts] == [500, 302, 404, 200]
    assert delivery.state is DeliveryState.DELIVERED
    assert {headers["webhook-id"] for headers in receiver.headers} == {sent_id}
    assert len(set(receiver.bodies)) == 1
    assert all(head.startswith("POST / ") for head in receiver.heads)


async def test_410_over_real_sockets_disables_the_endpoint(store: Store) -> None:
    """One try, and the endpoint's view says why it is off."""
    receiver = Receiver(answer(410))
    async with receiving(receiver) as port, sending(store, config_for(port), LaterClock()) as (webhooks, couriers):
        endpoint = await webhooks.endpoints.create("acme", f"http://localhost:{port}/", [], "")
        await webhooks.deliveries.enqueue("acme", "job.completed", JOB)
        await couriers.turn()
        await couriers.idle()
        found = await webhooks.endpoints.get("acme", endpoint.id)
    assert (found.enabled, found.disabled_reason) == (False, "it answered 410 Gone")


async def test_a_callback_is_verified_with_the_tenants_callback_secret(store: Store) -> None:
    """The URL's query, a token of the platform, arrives with it."""
    receiver = Receiver()
    async with receiving(receiver) as port, open_webhooks(store, config_for(port)) as webhooks:
        secret = (await webhooks.endpoints.rotate_callback_secret("acme")).current
        url = await webhooks.deliveries.check_callback("acme", f"http://localhost:{port}/resume?token=a%2Fb")
        await webhooks.deliveries.enqueue("acme", "job.completed", JOB, callback_url=url)
        await until(lambda: receiver.bodies)
    assert Webhook(secret).verify(receiver.bodies[0], receiver.headers[0])["data"] == JOB
    assert receiver.heads[0].startswith("POST /resume?token=a%2Fb ")


async def test_a_node_that_is_killed_in_the_middle_of_a_send_sends_it_again(redis_url: str, tmp_path: Path) -> None:
    """kill -9 after the receiver has the event and before it answered: another process sends it under the same id."""
    receiver, clock = Receiver(drip_s=30), LaterClock()
    async with receiving(receiver) as port, open_store(StoreConfig(url=redis_url), tmp_path) as store:
        async with sending(store, config_for(port), clock) as (webhooks, _):
            endpoint = await webhooks.endpoints.create("acme", f"http://localhost:{port}/", [], "")
            (sent_id,) = await webhooks.deliveries.enqueue("acme", "job.completed", JOB)
        program = str(Path(__file__).with_name("courier_process.py"))
        node = await asyncio.create_subprocess_exec(
            sys.executable, program, redis_url, str(port), env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        await until(lambda: receiver.bodies)
        node.send_signal(signal.SIGKILL)
        await node.wait()
        receiver.drip_s = 0
        async with sending(store, config_for(port), clock) as (webhooks, couriers):
            assert await couriers.turn() == 0
            clock.ahead = timedelta(seconds=46)
            assert await couriers.turn() == 1
            await couriers.idle()
            delivery = await webhooks.deliveries.get("acme", sent_id)
    assert (delivery.state, len(delivery.attempts)) == (DeliveryState.DELIVERED, 1)
    assert [headers["webhook-id"] for headers in receiver.headers] == [sent_id, sent_id]
    assert receiver.bodies[0] == receiver.bodies[1]
    for body, headers in zip(receiver.bodies, receiver.headers, strict=True):
        Webhook(endpoint.secrets.current).verify(body, headers)


async def test_a_receiver_that_hangs_holds_no_other(store: Store) -> None:
    """40 events to each of two receivers: the quick one has all of its before the hanging one has answered once."""
    slow, quick = Receiver(drip_s=30), Receiver()
    async with receiving(slow) as slow_port, receiving(quick) as quick_port:
        config = config_for(slow_port, quick_port).model_copy(update={"rate_per_destination": 1000})
        async with sending(store, config, LaterClock()) as (webhooks, couriers):
            for port in (slow_port, quick_port):
                await webhooks.endpoints.create("acme", f"http://localhost:{port}/", [], "")
            for _ in range(40):
                await webhooks.deliveries.enqueue("acme", "job.completed", JOB)
            running = asyncio.create_task(couriers.run())
            await until(lambda: len(quick.bodies) == 40)
            running.cancel()
            assert (len(slow.bodies), len({headers["webhook-id"] for headers in quick.headers})) == (4, 40)
            # One connection for each of the four in flight, used again and again.
            assert quick.num_connections <= 4
            await couriers.close(finish_s=0)


async def test_a_deleted_tenant_is_forgotten(store: Store) -> None:
    """Neither its endpoint gets events of the node, nor does its hook's address answer; others keep theirs."""
    receiver = Receiver()
    async with receiving(receiver) as port, sending(store, config_for(port), LaterClock()) as (webhooks, couriers):
        for tenant in ("acme", "globex"):
            await webhooks.endpoints.create(tenant, f"http://localhost:{port}/{tenant}", [], "")
        hook = await webhooks.hooks.create("acme", "n", {"kind": "create"}, {}, Check())
        await webhooks.forget("acme")
        await webhooks.deliveries.broadcast("policy.published", {"version": 4})
        await couriers.turn()
        await couriers.idle()
        with pytest.raises(NotFound):
            await webhooks.hooks.called(hook.id)
    assert [head.split(" ")[1] for head in receiver.heads] == ["/globex"]
