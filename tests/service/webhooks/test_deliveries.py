"""Which receivers an event goes to, what is put on the wire, and the log of it."""

import json

import pytest

from agent.errors import Conflict, DestinationRefused, NotFound
from service.webhooks.config import WebhooksConfig
from service.webhooks.endpoints import EndpointChange
from service.webhooks.events import DATA, MAX_BODY_BYTES, EventType, sample
from service.webhooks.records import DeliveryState
from service.webhooks.sender import Outcome
from tests.service.webhooks.rig import Rig

JOB = {"id": "job_1", "state": "succeeded"}


async def test_an_event_goes_to_the_endpoints_that_want_it(rig: Rig) -> None:
    """One that wants the type, one that wants every type; not another type's, a disabled one's, another tenant's."""
    wanted = await rig.add_endpoint("a", "job.completed")
    every = await rig.add_endpoint("b")
    await rig.add_endpoint("a", "job.failed")
    disabled = await rig.add_endpoint("a", "job.completed")
    await rig.endpoints.update("acme", disabled, EndpointChange(enabled=False))
    await rig.add_endpoint("a", tenant="globex")
    ids = await rig.deliveries.enqueue("acme", "job.completed", JOB)
    assert [(await rig.delivery(item)).endpoint_id for item in ids] == [wanted, every]


async def test_named_endpoints_get_an_event_whatever_they_want(rig: Rig) -> None:
    """`endpoint_ids` chooses; an empty list chooses none; another tenant's endpoint is not chosen."""
    first = await rig.add_endpoint("a", "job.failed")
    foreign = await rig.add_endpoint("b", tenant="globex")
    ids = await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[first, foreign])
    assert [(await rig.delivery(item)).endpoint_id for item in ids] == [first]
    assert await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[]) == ()


async def test_a_callback_url_is_one_more_receiver(rig: Rig) -> None:
    """Beside the endpoints; with an empty list it is the only one."""
    await rig.add_endpoint()
    url = "https://hooks.example.com/resume?token=1"
    assert len(await rig.deliveries.enqueue("acme", "job.completed", JOB, callback_url=url)) == 2
    (only,) = await rig.deliveries.enqueue("acme", "job.completed", JOB, endpoint_ids=[], callback_url=url)
    delivery = await rig.delivery(only)
    assert (delivery.endpoint_id, delivery.callback_url) == (None, url)


async def test_a_tenant_with_a_list_of_callback_hosts_may_name_no_other() -> None:
    """`*.` takes every name below, not the name itself; a tenant without a list may name any public host."""
    rig = Rig(WebhooksConfig(callback_hosts={"acme": ("a.example.com", "*.hooks.example")}))
    for host in ("a.example.com", "x.hooks.example", "y.x.hooks.example"):
        rig.endpoints.parse_callback("acme", f"https://{host}/")
    for host in ("b.example.com", "hooks.example", "evilhooks.example", "a.example.com.evil.example"):
        with pytest.raises(DestinationRefused, match="one of this tenant's callback hosts") as refused:
            rig.endpoints.parse_callback("acme", f"https://{host}/")
        assert refused.value.field == "callback_url"
    assert await rig.deliveries.check_callback("globex", "https://B.example.com") == "https://b.example.com/"
    with pytest.raises(DestinationRefused, match="host that resolves"):
        await rig.deliveries.check_callback("globex", "https://unknown.example.com")


async def test_an_event_queued_twice_under_one_id_is_sent_once(rig: Rig) -> None:
    """A job that reports its end again after a crash makes no second delivery; another event does."""
    await rig.add_endpoint()
    first = await rig.deliveries.enqueue("acme", "job.completed", JOB, event_id="job_1")
    assert await rig.deliveries.enqueue("acme", "job.completed", JOB, event_id="job_1") == first
    assert await rig.deliveries.enqueue("acme", "job.completed", JOB, event_id="job_2") != first
    while await rig.turn():
        pass
    assert len(rig.sent) == 2


async def test_two_receivers_of_one_event_get_ids_of_their_own(rig: Rig) -> None:
    """So that a receiver behind both does not take the second for a repetition of the first."""
    await rig.add_endpoint("a")
    await rig.add_endpoint("a")
    ids = await rig.deliveries.enqueue("acme", "job.completed", JOB, event_id="job_1")
    assert len(set(ids)) == 2


async def test_the_body_has_type_timestamp_and_data(rig: Rig) -> None:
    """The time is when the event was queued, in UTC to the millisecond, and the same on every try."""
    await rig.add_endpoint()
    (sent_id,) = await rig.deliveries.enqueue("acme", "job.completed", {**JOB, "text": "Grüße"})
    body = (await rig.delivery(sent_id)).body
    assert json.loads(body) == {
        "type": "job.completed",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "data": {**JOB, "text": "Grüße"},
    }
    assert "Grüße" in body


@pytest.mark.parametrize(
    ("config", "base"),
    [(WebhooksConfig(), ""), (WebhooksConfig(public_url="https://coloq.example/"), "https://coloq.example")],
)
async def test_a_large_event_carries_a_link_in_place_of_its_data(config: WebhooksConfig, base: str) -> None:
    """Short values stay, so that a scenario knows the job; the whole data is behind the link."""
    rig = Rig(config)
    await rig.add_endpoint()
    data = {**JOB, "result": {"text": "ü" * 12_000}, "note": "x" * 201, "tries": 1, "ok": True, "none": None}
    (sent_id,) = await rig.deliveries.enqueue("acme", "job.completed", data)
    body = (await rig.delivery(sent_id)).body
    assert len(body.encode()) <= MAX_BODY_BYTES
    assert json.loads(body)["data"] == {
        **JOB,
        "tries": 1,
        "ok": True,
        "none": None,
        "truncated": True,
        "link": f"{base}/v1/webhooks/deliveries/{sent_id}/data",
    }
    assert json.loads(await rig.deliveries.data("acme", sent_id)) == data
    with pytest.raises(NotFound):
        await rig.deliveries.data("globex", sent_id)


async def test_an_event_of_many_short_values_is_cut_to_the_link(rig: Rig) -> None:
    """200 texts of 200 characters are short one by one, and 40 kB together."""
    await rig.add_endpoint()
    (sent_id,) = await rig.deliveries.enqueue("acme", "job.completed", {f"k{n}": "x" * 200 for n in range(200)})
    data = json.loads((await rig.delivery(sent_id)).body)["data"]
    assert data == {"truncated": True, "link": f"/v1/webhooks/deliveries/{sent_id}/data"}


async def test_an_event_of_exactly_the_limit_is_sent_whole(rig: Rig) -> None:
    """20,000 bytes fit, 20,001 do not; `ü` is two bytes."""
    await rig.add_endpoint()
    (probe,) = await rig.deliveries.enqueue("acme", "job.completed", {"text": ""})
    room = MAX_BODY_BYTES - len((await rig.delivery(probe)).body.encode())
    texts = ["ü" + "x" * (room - 2), "ü" + "x" * (room - 1)]
    ids = [(await rig.deliveries.enqueue("acme", "job.completed", {"text": text}))[0] for text in texts]
    sizes = [len((await rig.delivery(item)).body.encode()) for item in ids]
    assert sizes[0] == MAX_BODY_BYTES
    assert "truncated" in (await rig.delivery(ids[1])).body


async def test_an_event_of_the_node_goes_to_every_tenant_that_wants_it(rig: Rig) -> None:
    """Once for each, also when it is told twice."""
    await rig.add_endpoint("a", "policy.published", tenant="acme")
    await rig.add_endpoint("b", "policy.published", tenant="globex")
    await rig.add_endpoint("b", "job.completed", tenant="initech")
    for _ in range(2):
        await rig.deliveries.broadcast("policy.published", {"version": 4}, event_id="policy-4")
    await rig.turn()
    assert sorted(sent.destination.host for sent in rig.sent) == ["a.example.com", "b.example.com"]


async def test_failures_are_listed_by_state(rig: Rig) -> None:
    """Every second of six is gone: three failures in pages of two, newest first, none twice."""
    ids: list[str] = []
    for number in range(6):
        url = f"https://a.example.com/{number}"
        ids += await rig.deliveries.enqueue("acme", "job.completed", JOB, callback_url=url)
        rig.answer(Outcome(1.0, 410 if number % 2 else 200))
        await rig.turn()
    failed = DeliveryState.FAILED
    first = await rig.deliveries.page("acme", cursor=None, limit=2, state=failed)
    assert [item.id for item in first.deliveries] == [ids[5], ids[3]]
    second = await rig.deliveries.page("acme", cursor=first.next_cursor, limit=2, state=failed)
    assert [item.id for item in second.deliveries] == [ids[1]]
    assert second.next_cursor is None


async def test_a_replay_starts_a_new_round_under_the_same_id(rig: Rig) -> None:
    """The receiver sees the id it knows; the log keeps the earlier tries; a second replay waits for the first."""
    await rig.add_endpoint()
    (sent_id,) = await rig.deliveries.enqueue("acme", "job.completed", JOB)
    await rig.turn()
    again = await rig.deliveries.replay("acme", sent_id)
    assert (again.state, again.num_tries, len(again.attempts)) == (DeliveryState.PENDING, 0, 1)
    with pytest.raises(Conflict, match="still being tried"):
        await rig.deliveries.replay("acme", sent_id)
    await rig.turn()
    assert [sent.headers["webhook-id"] for sent in rig.sent] == [sent_id, sent_id]
    done = await rig.delivery(sent_id)
    assert (done.state, len(done.attempts)) == (DeliveryState.DELIVERED, 2)


async def test_a_replay_needs_a_receiver(rig: Rig) -> None:
    """Not for another tenant, not to a disabled endpoint, not to a deleted one."""
    endpoint = await rig.add_endpoint()
    (sent_id,) = await rig.deliveries.enqueue("acme", "job.completed", JOB)
    await rig.turn()
    with pytest.raises(NotFound):
        await rig.deliveries.replay("globex", sent_id)
    await rig.endpoints.update("acme", endpoint, EndpointChange(enabled=False))
    with pytest.raises(Conflict, match="disabled"):
        await rig.deliveries.replay("acme", sent_id)
    await rig.endpoints.delete("acme", endpoint)
    with pytest.raises(NotFound):
        await rig.deliveries.replay("acme", sent_id)


async def test_a_test_event_goes_to_one_endpoint(rig: Rig) -> None:
    """Also when it wants other types; a disabled one is refused."""
    endpoint = await rig.add_endpoint("a", "job.failed")
    await rig.add_endpoint("b")
    delivery = await rig.deliveries.test("acme", endpoint)
    assert (delivery.event_type, delivery.endpoint_id) == ("webhook.test", endpoint)
    await rig.turn()
    assert len(rig.sent) == 1
    await rig.endpoints.update("acme", endpoint, EndpointChange(enabled=False))
    with pytest.raises(Conflict):
        await rig.deliveries.test("acme", endpoint)


async def test_attempts_of_earlier_rounds_are_let_go(rig: Rig) -> None:
    """At most 50 are kept, and the present round keeps all of its own."""
    await rig.add_endpoint()
    (sent_id,) = await rig.deliveries.enqueue("acme", "job.completed", JOB)
    for _ in range(55):
        rig.clock.advance(1)
        await rig.turn()
        await rig.deliveries.replay("acme", sent_id)
    rig.answer(Outcome(1.0, 500))
    rig.clock.advance(1)
    await rig.turn()
    delivery = await rig.delivery(sent_id)
    assert (len(delivery.attempts), delivery.num_tries) == (50, 1)


@pytest.mark.parametrize("event_type", EventType)
def test_every_type_has_data_with_an_example(event_type: EventType) -> None:
    """The sample is valid data of the type."""
    DATA[event_type].model_validate(sample(event_type))
    assert sample(event_type)
