"""`/v1/jobs`: look, list, cancel."""

import asyncio

import httpx
import pytest

from service.http.fakes import FakeNode

BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}
ASYNC = {"Prefer": "respond-async"}


@pytest.fixture
def caller(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> httpx.AsyncClient:
    client.headers.update(tenant_key)
    return client


async def accepted(caller: httpx.AsyncClient) -> str:
    response = await caller.post("/v1/content", json=BRIEF, headers=ASYNC)
    assert response.status_code == 202
    await asyncio.sleep(0.002)  # ids sort by the millisecond
    return str(response.json()["id"])


async def test_a_job_says_when_to_look_again_until_it_is_final(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """Retry-After stands on an open job only; times are ISO 8601 with a zone."""
    node.content.delay_s = 30
    job_id = await accepted(caller)
    await node.content.started.wait()
    response = await caller.get(f"/v1/jobs/{job_id}")
    assert response.headers["Retry-After"] == "2"
    job = response.json()
    assert (job["state"], job["finished_at"], job["attempts"]) == ("running", None, 1)
    assert job["created_at"] <= job["started_at"]
    assert job["started_at"].endswith("Z")
    await caller.delete(f"/v1/jobs/{job_id}")
    response = await caller.get(f"/v1/jobs/{job_id}")
    assert "Retry-After" not in response.headers
    assert response.json()["finished_at"] >= job["started_at"]


@pytest.mark.parametrize(("method", "suffix"), [("POST", "/cancel"), ("DELETE", "")])
async def test_cancelling_stops_the_generation(
    caller: httpx.AsyncClient, node: FakeNode, method: str, suffix: str
) -> None:
    """Both ways; the job keeps the problem, and cancelling it again changes nothing."""
    node.content.delay_s = 30
    job_id = await accepted(caller)
    await node.content.started.wait()
    first = await caller.request(method, f"/v1/jobs/{job_id}{suffix}")
    assert first.status_code == 200
    assert first.json()["state"] == "cancelled"
    assert first.json()["problem"]["code"] == "job_cancelled"
    await asyncio.wait_for(node.content.cancelled.wait(), 5)
    assert (await caller.request(method, f"/v1/jobs/{job_id}{suffix}")).json() == first.json()


async def test_another_tenants_job_is_not_found(
    caller: httpx.AsyncClient, node: FakeNode, other_key: dict[str, str]
) -> None:
    """404 for looking, cancelling and deleting, as for a job that never was; its list is empty."""
    node.content.delay_s = 30
    job_id = await accepted(caller)
    for method, path in (("GET", "/v1/jobs/{}"), ("POST", "/v1/jobs/{}/cancel"), ("DELETE", "/v1/jobs/{}")):
        for tried in (job_id, "job_9"):
            response = await caller.request(method, path.format(tried), headers=other_key)
            assert (response.status_code, response.json()["code"]) == (404, "not_found")
    assert (await caller.get("/v1/jobs", headers=other_key)).json() == {"jobs": [], "next_cursor": None}
    assert not node.content.cancelled.is_set()


@pytest.mark.parametrize("job_id", ["job_9", "%ff", "%F0%9F%98%80", "job_" + "G" * 28, "*", "job_" + "0" * 28])
async def test_an_id_that_cannot_be_is_not_found(caller: httpx.AsyncClient, job_id: str) -> None:
    """Whatever its bytes: the same answer as for an id that nobody has."""
    response = await caller.get(f"/v1/jobs/{job_id}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_a_list_is_read_page_by_page(caller: httpx.AsyncClient) -> None:
    """5 jobs in pages of 2: newest first, each once, and the last page names no next."""
    ids = [await accepted(caller) for _ in range(5)]
    seen, cursor = [], ""
    for expected in (2, 2, 1):
        page = (await caller.get(f"/v1/jobs?limit=2{cursor}")).json()
        assert len(page["jobs"]) == expected
        seen += [job["id"] for job in page["jobs"]]
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == ids[::-1]
    assert page["next_cursor"] is None


async def test_a_list_may_be_of_one_state(caller: httpx.AsyncClient, node: FakeNode) -> None:
    """The states are those of the jobs."""
    done = await accepted(caller)
    await asyncio.sleep(0.02)
    node.content.delay_s = 30
    running = await accepted(caller)
    await asyncio.sleep(0.02)
    for state, ids in (("succeeded", [done]), ("running", [running]), ("failed", [])):
        page = (await caller.get(f"/v1/jobs?state={state}")).json()
        assert [job["id"] for job in page["jobs"]] == ids


async def test_an_empty_cursor_counts_as_not_given(caller: httpx.AsyncClient) -> None:
    """A platform that pages through the list has no cursor for its first page."""
    job_id = await accepted(caller)
    page = (await caller.get("/v1/jobs?cursor=")).json()
    assert [job["id"] for job in page["jobs"]] == [job_id]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=0", "limit must be at least 1, got"),
        ("limit=101", "limit must be at most 100, got"),
        ("state=done", "state must be one of queued, running, succeeded, failed, cancelled, got"),
        ("cursor=x", 'cursor must be the next_cursor of an earlier page, got "x"'),
    ],
)
async def test_a_query_that_breaks_a_rule_is_422(caller: httpx.AsyncClient, query: str, message: str) -> None:
    """The rule, then what came."""
    response = await caller.get(f"/v1/jobs?{query}")
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert message in response.json()["detail"]
