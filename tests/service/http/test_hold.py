"""How a content call waits: held, then a job; idempotency; hanging up; the end of the node. The app's hold_s is 0.2."""

import asyncio
import json
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Message

from agent.errors import EngineDead, PromptTooLong, StoreError
from service.http.fakes import FakeNode
from service.http.hold import Call
from service.http.prefer import Preference
from service.idempotency import IdempotencyKey
from service.jobs.fakes import MemoryJobStore
from service.jobs.records import JobState, Order

BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}
SOON = {"Prefer": "wait=20"}


@pytest.fixture
def store(node: FakeNode) -> MemoryJobStore:
    assert isinstance(node.job_store, MemoryJobStore)
    return node.job_store


@pytest.fixture
def caller(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> httpx.AsyncClient:
    client.headers.update(tenant_key)
    return client


async def final(caller: httpx.AsyncClient, response: httpx.Response) -> dict[str, Any]:
    """The final job that a 202 points to."""
    async with asyncio.timeout(5):
        while True:
            job: dict[str, Any] = (await caller.get(response.headers["Location"])).json()
            if job["state"] not in ("queued", "running"):
                return job
            await asyncio.sleep(0.01)


async def test_a_call_that_is_held_too_long_becomes_a_job(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """202 with the job's place and when to look; the work goes on and its reply is the job's result."""
    node.content.delay_s = 0.4
    response = await caller.post("/v1/content", json=BRIEF)
    assert response.status_code == 202
    body = response.json()
    assert re.fullmatch(r"job_[0-9a-f]{28}", body["id"])
    assert body["poll_url"] == response.headers["Location"] == f"/v1/jobs/{body['id']}"
    assert response.headers["Retry-After"] == "2"
    assert (body["result"], body["problem"]) == (None, None)
    job = await final(caller, response)
    assert job["state"] == "succeeded"
    assert job["result"]["text"] == "Guten Tag."
    # The reply keeps the id of the call that asked, for feedback on it.
    assert job["result"]["request_id"] == job["request_id"] == response.headers["X-Request-Id"]
    assert (job["attempts"], job["problem"], job["dead_reason"]) == (1, None, None)
    assert len(node.content.calls) == 1
    assert not node.content.cancelled.is_set()


async def test_a_plain_call_in_time_is_no_job(caller: httpx.AsyncClient, node: FakeNode, store: MemoryJobStore) -> None:
    """It needs no store: with the store away it is answered all the same."""
    store.failure = StoreError("down")
    response = await caller.post("/v1/content", json=BRIEF)
    assert response.status_code == 200
    assert store.jobs == {}
    assert "Preference-Applied" not in response.headers


async def test_prefer_wait_shortens_the_hold(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """wait=0 and respond-async are 202 at once; the header says what was applied."""
    node.content.delay_s = 0.1
    for preference in ("wait=0", "respond-async"):
        response = await caller.post("/v1/content", json=BRIEF, headers={"Prefer": preference})
        assert response.status_code == 202
        assert response.headers["Preference-Applied"] == preference
        assert (await final(caller, response))["state"] == "succeeded"


async def test_respond_async_checks_the_brief_first(caller: httpx.AsyncClient, store: MemoryJobStore) -> None:
    """A brief that breaks a rule is 422, not a job that fails."""
    response = await caller.post("/v1/content", json={**BRIEF, "language": "fr"}, headers={"Prefer": "respond-async"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_brief")
    assert store.jobs == {}


async def test_what_cannot_be_kept_is_not_accepted(
    caller: httpx.AsyncClient, node: FakeNode, store: MemoryJobStore
) -> None:
    """With the store away neither an asynchronous call nor one that was held too long is 202, and no work goes on."""
    store.failure = StoreError("down")
    node.content.delay_s = 30
    for headers in ({"Prefer": "respond-async"}, {}):
        response = await caller.post("/v1/content", json=BRIEF, headers=headers)
        assert (response.status_code, response.json()["code"]) == (503, "store_unavailable")
    assert node.content.cancelled.is_set()


async def test_an_acceptance_is_durable_before_it_is_told(caller: httpx.AsyncClient, store: MemoryJobStore) -> None:
    """The store is asked to sync before 202 goes out."""
    await caller.post("/v1/content", json=BRIEF, headers={"Prefer": "respond-async"})
    assert store.num_syncs == 1


async def test_a_jobs_failure_is_its_problem(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """What the call would have been answered with, with the call's request id and route."""
    node.content.error = PromptTooLong("prompt and reply must fit 1024 tokens, got 1500")
    response = await caller.post("/v1/content", json=BRIEF, headers={"Prefer": "respond-async"})
    job = await final(caller, response)
    assert (job["state"], job["result"], job["dead_reason"]) == ("failed", None, None)
    assert (job["problem"]["code"], job["problem"]["status"]) == ("prompt_too_long", 422)
    assert job["problem"]["request_id"] == response.headers["X-Request-Id"]
    assert job["problem"]["instance"] == "/v1/content"


async def test_fifty_parallel_posts_of_one_key_are_one_generation(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """All 50 get the same reply; 49 of them are told that it is a replay."""
    node.content.delay_s = 0.1
    headers = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324", **SOON}
    responses = await asyncio.gather(*(caller.post("/v1/content", json=BRIEF, headers=headers) for _ in range(50)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1
    assert sum(response.headers.get("Idempotency-Replayed") == "true" for response in responses) == 49
    assert len(node.content.calls) == 1


async def test_a_replay_has_status_body_and_headers_of_the_first(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """A success and a refusal alike; the engine is asked once each."""
    for key, error, status in (("a", None, 200), ("b", PromptTooLong("too long"), 422)):
        node.content.error = error
        first = await caller.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": key, **SOON})
        again = await caller.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": key, **SOON})
        assert first.status_code == again.status_code == status
        assert first.text == again.text
        for name in ("X-Policy-Version", "X-Language-Verdict", "Content-Type"):
            assert first.headers.get(name) == again.headers.get(name)
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
    assert len(node.content.calls) == 2


async def test_a_replay_needs_no_wait(caller: httpx.AsyncClient) -> None:
    """A finished job answers respond-async with its reply at once."""
    headers = {"Idempotency-Key": "a"}
    await caller.post("/v1/content", json=BRIEF, headers={**headers, **SOON})
    again = await caller.post("/v1/content", json=BRIEF, headers={**headers, "Prefer": "respond-async"})
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (200, "true")


async def test_one_key_with_two_bodies_is_422(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """Named by its header; null counts as not given, so it does not make another body."""
    headers = {"Idempotency-Key": "a", **SOON}
    await caller.post("/v1/content", json=BRIEF, headers=headers)
    same = await caller.post("/v1/content", json={**BRIEF, "tone": None}, headers=headers)
    assert same.headers["Idempotency-Replayed"] == "true"
    other = await caller.post("/v1/content", json={**BRIEF, "tone": "friendly"}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert [error["field"] for error in other.json()["errors"]] == ["Idempotency-Key"]
    assert len(node.content.calls) == 1


async def test_advice_can_be_followed_under_the_same_key(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """A refused call is mended and sent again, and platforms take the key from the record that it is for."""
    headers = {"Idempotency-Key": "text-4711", **SOON}
    node.content.error = PromptTooLong("too long")
    refused = await caller.post("/v1/content", json=BRIEF, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "prompt_too_long")
    node.content.error = None
    mended = await caller.post("/v1/content", json={**BRIEF, "max_tokens": 20}, headers=headers)
    assert (mended.status_code, mended.headers.get("Idempotency-Replayed")) == (200, None)
    assert len(node.content.calls) == 2


async def test_keys_of_two_tenants_do_not_meet(
    caller: httpx.AsyncClient, node: FakeNode, other_key: dict[str, str]
) -> None:
    """The same key and body of another tenant is another call."""
    headers = {"Idempotency-Key": "a", **SOON}
    await caller.post("/v1/content", json=BRIEF, headers=headers)
    other = await caller.post("/v1/content", json=BRIEF, headers={**headers, **other_key})
    assert "Idempotency-Replayed" not in other.headers
    assert [brief.tenant for brief, _, _ in node.content.calls] == ["acme", "globex"]


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ([("Idempotency-Key", "")], "Idempotency-Key"),
        ([("Idempotency-Key", "k" * 256)], "Idempotency-Key"),
        ([("Idempotency-Key", "a"), ("Idempotency-Key", "b")], "Idempotency-Key"),
        ([("X-Idempotency-Mode", "always")], "X-Idempotency-Mode"),
    ],
)
async def test_headers_that_break_a_rule_are_422(
    caller: httpx.AsyncClient, headers: list[tuple[str, str]], field: str
) -> None:
    """The problem names the header."""
    response = await caller.post("/v1/content", json=BRIEF, headers=[*caller.headers.items(), *headers])
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert [error["field"] for error in response.json()["errors"]] == [field]


@pytest.mark.parametrize("headers", [{"X-Idempotency-Mode": "body"}, {"Idempotency-Key": "auto"}])
async def test_nine_calls_of_one_body_that_time_out_are_one_generation(
    caller: httpx.AsyncClient, node: FakeNode, headers: dict[str, str]
) -> None:
    """As Make retries: the call and 8 more, each 202 until the reply is there; another body is another call."""
    node.content.delay_s = 0.5
    statuses = []
    for _ in range(9):
        response = await caller.post("/v1/content", json=BRIEF, headers={**headers, "Prefer": "wait=0"})
        statuses.append(response.status_code)
        await asyncio.sleep(0.08)
    # 9 calls 80 ms apart reach from 0 to 640 ms, and the reply is there after 500.
    assert (statuses[0], statuses[-1]) == (202, 200)
    assert len(node.content.calls) == 1
    await caller.post("/v1/content", json={**BRIEF, "tone": "friendly"}, headers={**headers, "Prefer": "wait=0"})
    await asyncio.sleep(0.05)
    assert len(node.content.calls) == 2


async def test_an_answered_body_starts_its_shorter_life(caller: httpx.AsyncClient, store: MemoryJobStore) -> None:
    """Only once a caller got the answer: 202 does not count."""
    headers = {"X-Idempotency-Mode": "body"}
    await caller.post("/v1/content", json=BRIEF, headers={**headers, "Prefer": "respond-async"})
    assert store.answered_keys == []
    await asyncio.sleep(0.05)
    await caller.post("/v1/content", json=BRIEF, headers=headers)
    assert len(store.answered_keys) == 1


async def test_an_answer_that_was_polled_has_been_given(caller: httpx.AsyncClient, store: MemoryJobStore) -> None:
    """Else a body that comes again within a day, long after its job was fetched, would get the old text."""
    headers = {"X-Idempotency-Mode": "body", "Prefer": "respond-async"}
    await final(caller, await caller.post("/v1/content", json=BRIEF, headers=headers))
    assert len(store.answered_keys) == 1
    chosen = await caller.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": "a", "Prefer": "respond-async"})
    await final(caller, chosen)
    assert len(store.answered_keys) == 1


@pytest.mark.parametrize("by_tenant", [True, False])
async def test_a_tenant_may_have_its_calls_recognised_by_their_body(
    caller: httpx.AsyncClient, node: FakeNode, tenants: dict[str, Any], by_tenant: bool
) -> None:
    """For platforms that send no headers; a call that says `header` is exempt."""
    tenants["tenant-key"] = tenants["tenant-key"].model_copy(update={"idempotency": "body"})
    headers = {} if by_tenant else {"X-Idempotency-Mode": "header"}
    for _ in range(2):
        await caller.post("/v1/content", json=BRIEF, headers={**headers, **SOON})
    assert len(node.content.calls) == (1 if by_tenant else 2)


async def test_a_failure_of_the_node_may_be_tried_under_the_same_key(
    caller: httpx.AsyncClient, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five tries, then the engine's problem; the key is free again, and the next call is answered."""
    monkeypatch.setattr("service.jobs.runner._FIRST_BACKOFF_S", 0.001)
    headers = {"Idempotency-Key": "a", **SOON}
    node.content.error = EngineDead("gone")
    failed = await caller.post("/v1/content", json=BRIEF, headers=headers)
    assert (failed.status_code, failed.json()["code"]) == (503, "engine_unavailable")
    assert failed.headers["Retry-After"] == "15"
    assert len(node.content.calls) == 5
    (dead,) = (await caller.get("/v1/jobs?state=failed")).json()["jobs"]
    assert dead["dead_reason"] == "given up after 5 tries"
    node.content.error = None
    assert (await caller.post("/v1/content", json=BRIEF, headers=headers)).status_code == 200


async def test_a_cancelled_job_answers_who_is_held(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """409, and the same to the next call of that key."""
    node.content.delay_s = 30
    headers = {"Idempotency-Key": "a", **SOON}
    held = asyncio.create_task(caller.post("/v1/content", json=BRIEF, headers=headers))
    await node.content.started.wait()
    (job,) = (await caller.get("/v1/jobs")).json()["jobs"]
    await caller.post(f"/v1/jobs/{job['id']}/cancel")
    for response in (await held, await caller.post("/v1/content", json=BRIEF, headers=headers)):
        assert (response.status_code, response.json()["code"]) == (409, "job_cancelled")
    assert node.content.cancelled.is_set()


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ({"Idempotency-Key": "a"}, {"Idempotency-Key": "b"}),
        ({"X-Idempotency-Mode": "body"}, {"X-Idempotency-Mode": "header"}),
    ],
)
async def test_a_cancelled_job_says_how_to_get_a_new_one(
    caller: httpx.AsyncClient, node: FakeNode, first: dict[str, str], again: dict[str, str]
) -> None:
    """Its key stands for it still, so the very same call is answered with the cancellation; the advice works."""
    node.content.delay_s = 30
    job = (await caller.post("/v1/content", json=BRIEF, headers={**first, "Prefer": "respond-async"})).json()
    await caller.post(f"/v1/jobs/{job['id']}/cancel")
    node.content.delay_s = 0
    refused = await caller.post("/v1/content", json=BRIEF, headers={**first, **SOON})
    assert refused.status_code == 409
    assert all(word in refused.json()["detail"] for word in ("another Idempotency-Key", "X-Idempotency-Mode: header"))
    assert (await caller.post("/v1/content", json=BRIEF, headers={**again, **SOON})).status_code == 200


class HangsUp:
    """Drives the app by hand: sends a body, and hangs up once the node has begun."""

    def __init__(self, app: FastAPI, node: FakeNode, headers: dict[str, str]) -> None:
        self._app = app
        self._node = node
        self._messages: list[Message] = [{"type": "http.request", "body": json.dumps(BRIEF).encode()}]
        fields = {"authorization": "Bearer tenant-key", "content-type": "application/json", **headers}
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/content",
            "raw_path": b"/v1/content",
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in fields.items()],
            "server": ("node", 80),
            "client": ("127.0.0.1", 1),
        }

    async def call(self) -> None:
        async with asyncio.timeout(5):
            await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if self._messages:
            return self._messages.pop()
        await self._node.content.started.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        assert message["type"] != "http.response.start" or message["status"] == 499


async def test_hanging_up_does_not_stop_a_call_with_a_key(
    app: FastAPI, node: FakeNode, store: MemoryJobStore, caller: httpx.AsyncClient
) -> None:
    """The job goes on; the retry gets its reply without another generation."""
    node.content.delay_s = 0.1
    await HangsUp(app, node, {"Idempotency-Key": "a"}).call()
    retry = await caller.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": "a", **SOON})
    assert (retry.status_code, retry.headers["Idempotency-Replayed"]) == (200, "true")
    assert len(node.content.calls) == 1


@pytest.mark.parametrize(
    ("callback_url", "key", "outlives"),
    [
        (None, None, False),
        ("https://example.com/hook", None, True),
        (None, IdempotencyKey("k", "f", 60.0), True),
    ],
)
def test_a_call_that_is_answered_elsewhere_outlives_its_caller(
    callback_url: str | None, key: IdempotencyKey | None, outlives: bool
) -> None:
    """By a callback, or by a repetition of its key."""
    order = Order("acme", "/v1/content", "{}", "req_1", callback_url)
    assert Call(order, key, Preference(25.0, None)).outlives_its_caller is outlives


async def test_hanging_up_stops_a_plain_call(app: FastAPI, node: FakeNode, store: MemoryJobStore) -> None:
    """Nobody would ever ask for its reply."""
    node.content.delay_s = 30
    await HangsUp(app, node, {}).call()
    assert node.content.cancelled.is_set()
    assert store.jobs == {}


async def test_held_calls_become_jobs_when_the_node_stops(
    caller: httpx.AsyncClient, node: FakeNode, store: MemoryJobStore
) -> None:
    """A plain call and one with a key: both are 202, and both jobs are queued in the store for the next start."""
    node.content.delay_s = 30
    calls = [
        asyncio.create_task(caller.post("/v1/content", json=BRIEF, headers={**SOON, **headers}))
        for headers in ({}, {"Idempotency-Key": "a"})
    ]
    await asyncio.sleep(0.05)
    node.jobs.release_held(0.01)
    assert [response.status_code for response in await asyncio.gather(*calls)] == [202, 202]
    await node.jobs.close()
    assert [(job.state, job.attempts) for job in store.jobs.values()] == [(JobState.QUEUED, 0)] * 2
    # The next start: the same store, another node.
    node.content.delay_s = 0
    successor = FakeNode(content=node.content, config=node.config, job_store=store)
    async with successor.jobs.running():
        for job_id in store.jobs:
            job = await asyncio.wait_for(successor.jobs.until_final("acme", job_id), 5)
            assert job.state is JobState.SUCCEEDED
