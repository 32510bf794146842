"""The store's records and their fakes: one set of facts for both."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from service.config import StoreConfig
from service.store import Store, open_store
from service.webhooks.fakes import FakeEndpoints, FakeHooks, FakeQueue
from service.webhooks.hook import Check, Hook, Verification
from service.webhooks.ports import DeliveryQueue, EndpointRecords, HookRecords
from service.webhooks.records import Attempt, Delivery, DeliveryState, Endpoint, Lane, SigningSecrets
from service.webhooks.redis_queue import RedisQueue
from service.webhooks.redis_records import RedisEndpoints, RedisHooks

NOW = datetime.now(UTC).replace(microsecond=0)
LANE = Lane("acme", "a.example.com")
ENDPOINT = Endpoint(
    "ep_1", "acme", "https://a.example.com/", ("job.completed",), "", True, None, NOW, SigningSecrets("whsec_1")
)
DELIVERY = Delivery("msg_1", "acme", "job.completed", "ep_1", None, '{"a":"ü"}', NOW, next_attempt_at=NOW)
HOOK = Hook(
    "hook_1", "acme", "n", True, {"kind": "create"}, {"a": 1}, Check(Verification.HEADER, "X-Key", "geheim"), NOW
)


@dataclass
class Records:
    endpoints: EndpointRecords
    queue: DeliveryQueue
    hooks: HookRecords


@pytest_asyncio.fixture(params=["fake", "valkey", "redis"])
async def records(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Records]:
    if request.param == "fake":
        yield Records(FakeEndpoints(), FakeQueue(), FakeHooks())
        return
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with open_store(StoreConfig(url=url), tmp_path_factory.mktemp("store")) as store:
        yield Records(RedisEndpoints(store), RedisQueue(store, retention_s=600_000), RedisHooks(store))


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


async def test_endpoints_belong_to_their_tenant(records: Records) -> None:
    """Another tenant neither sees, changes nor deletes one; they come back as written, oldest first."""
    later = replace(ENDPOINT, id="ep_0", created_at=NOW + seconds(1))
    assert await records.endpoints.add(ENDPOINT, limit=2)
    assert await records.endpoints.add(later, limit=2)
    assert not await records.endpoints.add(replace(ENDPOINT, id="ep_3"), limit=2)
    assert await records.endpoints.list("acme") == [ENDPOINT, later]
    assert await records.endpoints.get("globex", "ep_1") is None
    assert await records.endpoints.change("globex", "ep_1", lambda item: item) is None
    assert not await records.endpoints.remove("globex", "ep_1")
    assert await records.endpoints.get("acme", "ep_1") == ENDPOINT
    assert await records.endpoints.tenants() == ["acme"]
    assert await records.endpoints.remove("acme", "ep_1")
    assert await records.endpoints.list("acme") == [later]


async def test_changes_at_the_same_time_are_all_made(records: Records) -> None:
    """Ten changes that each add a character: none is lost."""
    await records.endpoints.add(ENDPOINT, limit=2)

    def longer(endpoint: Endpoint) -> Endpoint:
        return replace(endpoint, description=endpoint.description + "x")

    await asyncio.gather(*(records.endpoints.change("acme", "ep_1", longer) for _ in range(10)))
    found = await records.endpoints.get("acme", "ep_1")
    assert found is not None
    assert found.description == "x" * 10


async def test_failures_are_counted_from_the_first_one_after_a_success(records: Records) -> None:
    """Later failures keep the time of the first; a success forgets it."""
    assert await records.endpoints.failing_since("acme", "ep_1", NOW) == NOW
    assert await records.endpoints.failing_since("acme", "ep_1", NOW + seconds(9)) == NOW
    await records.endpoints.working("acme", "ep_1")
    assert await records.endpoints.failing_since("acme", "ep_1", NOW + seconds(9)) == NOW + seconds(9)


async def test_the_first_callback_secret_stays(records: Records) -> None:
    """A second maker gets the first one's; setting replaces it."""
    first, second = SigningSecrets("whsec_1"), SigningSecrets("whsec_2")
    assert await records.endpoints.callback_secrets("acme", first) == first
    assert await records.endpoints.callback_secrets("acme", second) == first
    await records.endpoints.set_callback_secrets("acme", second)
    assert await records.endpoints.callback_secrets("acme", first) == second


async def test_a_delivery_is_added_once(records: Records) -> None:
    """The same id again changes nothing: an event that is queued twice is sent once."""
    assert await records.queue.add(DELIVERY, LANE, NOW)
    assert not await records.queue.add(replace(DELIVERY, body="other"), LANE, NOW)
    assert await records.queue.get("acme", "msg_1") == DELIVERY
    assert await records.queue.get("globex", "msg_1") is None
    assert len(await records.queue.claim(LANE, NOW, NOW + seconds(45), 10)) == 1


async def test_what_is_due_is_claimed_once_until_its_lease_ends(records: Records) -> None:
    """Nothing before it is due; once for two senders; again when nobody settled it in time."""
    await records.queue.add(DELIVERY, LANE, NOW + seconds(5))
    assert await records.queue.lanes_due(NOW) == []
    due = NOW + seconds(5)
    assert await records.queue.lanes_due(due) == [LANE]
    (lease,) = await records.queue.claim(LANE, due, due + seconds(45), 10)
    assert lease.delivery_id == "msg_1"
    assert await records.queue.claim(LANE, due, due + seconds(45), 10) == []
    assert await records.queue.lanes_due(due) == []
    assert await records.queue.lanes_due(due + seconds(45)) == [LANE]
    (again,) = await records.queue.claim(LANE, due + seconds(45), due + seconds(90), 10)
    assert again.delivery_id == "msg_1"
    # The first sender comes back from a long pause: the delivery is another's now.
    assert not await records.queue.settle(lease, replace(DELIVERY, state=DeliveryState.FAILED), None)
    found = await records.queue.get("acme", "msg_1")
    assert found is not None
    assert found.state is DeliveryState.PENDING


async def test_a_settled_delivery_is_off_the_queue_or_due_again(records: Records) -> None:
    """With a time it comes back then, without one it does not; both times its record is replaced."""
    await records.queue.add(DELIVERY, LANE, NOW)
    (lease,) = await records.queue.claim(LANE, NOW, NOW + seconds(45), 10)
    tried = replace(DELIVERY, attempts=(Attempt(NOW, 12.5, 500, None),), next_attempt_at=NOW + seconds(5))
    assert await records.queue.settle(lease, tried, NOW + seconds(5))
    assert await records.queue.get("acme", "msg_1") == tried
    assert await records.queue.lanes_due(NOW + seconds(4)) == []
    (lease,) = await records.queue.claim(LANE, NOW + seconds(5), NOW + seconds(50), 10)
    assert await records.queue.settle(lease, replace(tried, state=DeliveryState.DELIVERED), None)
    assert await records.queue.lanes_due(NOW + timedelta(days=9)) == []


async def test_lanes_are_claimed_apart_longest_waiting_first(records: Records) -> None:
    """A lane's limit takes nothing of another lane."""
    other = Lane("globex", "a.example.com")
    for number in range(3):
        await records.queue.add(replace(DELIVERY, id=f"msg_{number}"), LANE, NOW + seconds(number))
    await records.queue.add(replace(DELIVERY, id="msg_9", tenant="globex"), other, NOW + seconds(1))
    late = NOW + seconds(10)
    assert await records.queue.lanes_due(late) == [LANE, other]
    assert await records.queue.lanes_due(late, 1) == [other]
    assert await records.queue.lanes_due(late, 2) == []
    claimed = await records.queue.claim(LANE, late, late + seconds(45), 2)
    assert [lease.delivery_id for lease in claimed] == ["msg_0", "msg_1"]
    assert await records.queue.lanes_due(late) == [other, LANE]


async def test_the_log_is_read_newest_first_page_by_page(records: Records) -> None:
    """Every delivery once, also when newer ones are added between two pages."""
    for number in range(5):
        await records.queue.add(replace(DELIVERY, id=f"msg_{number}", created_at=NOW + seconds(number)), LANE, NOW)
    first = await records.queue.page("acme", None, 2)
    assert [item.id for item in first.deliveries] == ["msg_4", "msg_3"]
    await records.queue.add(replace(DELIVERY, id="msg_5", created_at=NOW + seconds(9)), LANE, NOW)
    second = await records.queue.page("acme", first.next_cursor, 2)
    assert [item.id for item in second.deliveries] == ["msg_2", "msg_1"]
    third = await records.queue.page("acme", second.next_cursor, 2)
    assert [item.id for item in third.deliveries] == ["msg_0"]
    assert third.next_cursor is None
    assert (await records.queue.page("acme", "nonsense", 2)).deliveries == ()
    assert (await records.queue.page("globex", None, 2)).deliveries == ()


async def test_large_data_is_kept_for_its_tenant(records: Records) -> None:
    """Under the delivery's id, for nobody else."""
    await records.queue.keep_data("acme", "msg_1", '{"text":"…"}')
    assert await records.queue.data("acme", "msg_1") == '{"text":"…"}'
    assert await records.queue.data("globex", "msg_1") is None


async def test_hooks_are_found_by_id_and_changed_by_their_tenant(records: Records) -> None:
    """Anybody who knows the id finds it; another tenant cannot take it away."""
    assert await records.hooks.add(HOOK, limit=1)
    assert not await records.hooks.add(replace(HOOK, id="hook_2"), limit=1)
    assert await records.hooks.find("hook_1") == HOOK
    assert not await records.hooks.remove("globex", "hook_1")
    assert await records.hooks.find("hook_1") == HOOK
    changed = replace(HOOK, name="other")
    assert await records.hooks.replace(changed)
    assert await records.hooks.list("acme") == [changed]
    assert await records.hooks.list("globex") == []
    assert await records.hooks.remove("acme", "hook_1")
    assert await records.hooks.find("hook_1") is None
    assert not await records.hooks.replace(changed)


async def test_deliveries_and_data_expire(store: Store) -> None:
    """What is stored of a delivery goes by itself after the retention, also a dead one's."""
    queue = RedisQueue(store, retention_s=600)
    await queue.add(DELIVERY, LANE, NOW)
    await queue.keep_data("acme", "msg_1", "{}")
    for key in ("delivery:msg_1", "data:msg_1", "log"):
        assert 590_000 < await store.redis.pttl(f"t:acme:webhooks:{key}") <= 600_000
    await queue.add(replace(DELIVERY, id="msg_2", created_at=NOW + seconds(601)), LANE, NOW)
    assert [item.id for item in (await queue.page("acme", None, 10)).deliveries] == ["msg_2"]
