"""Limits where a call is no plain request: inbound hooks, jobs, a full queue."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agent.config import AgentConfig, LanguageSettings, LimitSettings, TenantSettings
from agent.errors import QueueFull
from service.config import JobsConfig, NodeConfig
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode

BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}
HOOK = {
    "name": "shop",
    "mapping": {"kind": "create", "language": "de", "instructions": {"from": "title"}},
    "example": {"title": "Klingel"},
    "verification": {"kind": "header", "header": "X-Key", "secret": "my-own-secret-here"},
}
ONE_A_DAY = TenantSettings(
    id="acme", languages={"de": LanguageSettings()}, limits=LimitSettings(requests_per_day=1, concurrent_requests=1)
)


@pytest.fixture
def node() -> FakeNode:
    return FakeNode(config=NodeConfig(jobs=JobsConfig(max_attempts=2)))


@pytest.fixture
async def caller(node: FakeNode) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(node, FakeAuthenticator({"acme-key": ONE_A_DAY}), node.config, FakeMetrics())
    key = {"Authorization": "Bearer acme-key"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node", headers=key) as client:
        yield client


async def test_a_call_of_a_hook_uses_its_tenants_limits(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """One request a day: the first call of a hook is it. Calls that do not know the secret use nothing."""
    hook: dict[str, Any] = (await caller.post("/v1/hooks-config", json=HOOK)).json()
    del caller.headers["Authorization"]
    unknown = await caller.post(hook["path"], json=HOOK["example"], headers={"X-Key": "something-else-here"})
    assert (unknown.status_code, node.limits.used_today("acme")) == (403, (0, 0))
    first = await caller.post(hook["path"], json=HOOK["example"], headers={"X-Key": "my-own-secret-here"})
    assert first.status_code == 200
    assert first.headers["RateLimit"].startswith('"requests_per_day";r=0;t=')
    assert node.limits.used_today("acme")[0] == 1
    second = await caller.post(hook["path"], json=HOOK["example"], headers={"X-Key": "my-own-secret-here"})
    assert (second.status_code, second.json()["code"]) == (429, "quota_exhausted")
    assert len(node.content.calls) == 1


async def test_a_job_can_be_looked_at_and_cancelled_at_the_limit(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """The day's one request is used up: another is 429, and what runs can still be stopped."""
    node.content.delay_s = 60
    job = (await caller.post("/v1/content", json=BRIEF, headers={"Prefer": "respond-async"})).json()
    assert (await caller.post("/v1/content", json=BRIEF)).status_code == 429
    assert (await caller.get(f"/v1/jobs/{job['id']}")).status_code == 200
    cancelled = await caller.post(f"/v1/jobs/{job['id']}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")


@pytest.mark.parametrize("preference", ["wait=20", "respond-async"])
async def test_a_repeated_call_counts_once_in_a_day(preference: str) -> None:
    """Four calls of one key use one of the day's two requests; the answer's head says so, and another call fits."""
    node = FakeNode()
    tenant = ONE_A_DAY.model_copy(update={"limits": LimitSettings(requests_per_day=2)})
    app = create_app(node, FakeAuthenticator({"acme-key": tenant}), node.config, FakeMetrics())
    key = {"Authorization": "Bearer acme-key"}
    headers = {"Idempotency-Key": "bell", "Prefer": preference}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node", headers=key) as caller:
        for _ in range(4):
            response = await caller.post("/v1/content", json=BRIEF, headers=headers)
            assert response.status_code in (200, 202)
        assert response.headers["RateLimit"].startswith('"requests_per_day";r=1;t=')
        assert node.limits.used_today("acme")[0] == 1
        assert (await caller.post("/v1/content", json=BRIEF)).status_code == 200
        assert (await caller.post("/v1/content", json=BRIEF)).status_code == 429
    await node.jobs.close()


async def test_an_accepted_job_that_finds_no_room_is_tried_again(
    caller: httpx.AsyncClient, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """max_attempts is 2: a queue that stays full is the answer of the second try, 429, and frees the key."""
    monkeypatch.setattr("service.jobs.runner._FIRST_BACKOFF_S", 0.01)
    node.content.error = QueueFull("max_queued is 1, and so many wait", limit="max_queued", retry_after_s=1)
    response = await caller.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": "bell"})
    assert (response.status_code, response.json()["code"]) == (429, "queue_full")
    assert len(node.content.calls) == 2
    (job,) = (await caller.get("/v1/jobs")).json()["jobs"]
    assert (job["state"], job["attempts"], job["dead_reason"]) == ("failed", 2, "given up after 2 tries")


TWO_AT_ONCE = ONE_A_DAY.model_copy(update={"limits": LimitSettings(concurrent_requests=2)})


@pytest.fixture
async def pair() -> AsyncIterator[tuple[httpx.AsyncClient, FakeNode]]:
    """A caller whose tenant may have two requests run at one time, on a node that holds calls for 50 ms."""
    node = FakeNode(config=NodeConfig(agent=AgentConfig(hold_s=0.05)))
    app = create_app(node, FakeAuthenticator({"acme-key": TWO_AT_ONCE}), node.config, FakeMetrics())
    key = {"Authorization": "Bearer acme-key"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node", headers=key) as client:
        yield client, node
    await node.jobs.close()


async def statuses_of(caller: httpx.AsyncClient, num_calls: int) -> list[int]:
    """Of plain calls at one time."""
    calls = [caller.post("/v1/content", json=BRIEF) for _ in range(num_calls)]
    return sorted(response.status_code for response in await asyncio.gather(*calls))


async def until_done(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """Every job is final, and out of the node's hands."""
    for job in (await caller.get("/v1/jobs")).json()["jobs"]:
        await asyncio.wait_for(node.jobs.until_final("acme", job["id"]), 5)
    await asyncio.sleep(0.01)
    node.content.delay_s = 0.01


@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "bell"}, {"Prefer": "respond-async"}])
async def test_a_job_counts_as_running_until_it_is_done(
    pair: tuple[httpx.AsyncClient, FakeNode], headers: dict[str, str]
) -> None:
    """Of two places it has one, not two and not none, whichever way the call became a job; then both are free."""
    caller, node = pair
    node.content.delay_s = 0.5
    assert (await caller.post("/v1/content", json=BRIEF, headers=headers)).status_code == 202
    await asyncio.sleep(0.01)
    assert await statuses_of(caller, 2) == [202, 429]
    await until_done(caller, node)
    assert await statuses_of(caller, 3) == [200, 200, 429]


async def test_a_job_whose_caller_hung_up_goes_on_counting(pair: tuple[httpx.AsyncClient, FakeNode]) -> None:
    """A call with an idempotency key is cut off while it is held; its job runs on in the place that the call had."""
    caller, node = pair
    node.content.delay_s = 0.5
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.03):
            await caller.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": "bell"})
    assert await statuses_of(caller, 2) == [202, 429]
    await until_done(caller, node)
    assert await statuses_of(caller, 3) == [200, 200, 429]


async def test_a_repeated_call_counts_beside_the_job_it_waits_for(pair: tuple[httpx.AsyncClient, FakeNode]) -> None:
    """The job has one place, a second call of its key another: the third is 429, and one text is written."""
    caller, node = pair
    node.content.delay_s = 0.02
    calls = [caller.post("/v1/content", json=BRIEF, headers={"Idempotency-Key": "bell"}) for _ in range(3)]
    assert sorted(response.status_code for response in await asyncio.gather(*calls)) == [200, 200, 429]
    assert len(node.content.calls) == 1
