"""`callback_url` of a content call, and the events of its job."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from agent.config import TenantSettings
from agent.errors import PromptTooLong
from service.config import NodeConfig
from service.http.fakes import FakeNode
from service.http.job_webhooks import JobWebhooks
from service.jobs.records import Answer, Job, JobState, Order
from service.tenants import Tenants
from service.webhooks.assembly import Webhooks
from service.webhooks.config import WebhooksConfig
from service.webhooks.fakes import fake_webhooks
from service.webhooks.records import Delivery, utc_now

BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}
CALLBACK = "https://hooks.example.com/done?id=7"


@pytest.fixture
def webhooks() -> Webhooks:
    return fake_webhooks()


@pytest.fixture
def node(config: NodeConfig, tenants: dict[str, TenantSettings], webhooks: Webhooks) -> FakeNode:
    return FakeNode(
        config=config,
        tenants=Tenants.of(tenants.values()),
        webhooks=webhooks,
        events=JobWebhooks(webhooks.deliveries),
    )


async def deliveries(webhooks: Webhooks, count: int) -> list[Delivery]:
    """The tenant's deliveries once there are so many."""
    async with asyncio.timeout(5):
        while True:
            page = await webhooks.deliveries.page("acme", cursor=None, limit=10)
            if len(page.deliveries) >= count:
                return [*page.deliveries]
            await asyncio.sleep(0.01)


def event(delivery: Delivery) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(delivery.body)
    return body


async def test_a_call_with_a_callback_is_answered_and_told(
    client: httpx.AsyncClient, webhooks: Webhooks, tenant_key: dict[str, str]
) -> None:
    """In time: 200, and an event with the job and the same reply, for the callback URL and for the endpoint."""
    endpoint = await webhooks.endpoints.create("acme", "https://hooks.example.com/", (), "")
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, "callback_url": CALLBACK})
    assert response.status_code == 200
    told = await deliveries(webhooks, 2)
    assert {(item.callback_url, item.endpoint_id) for item in told} == {(CALLBACK, None), (None, endpoint.id)}
    for delivery in told:
        body = event(delivery)
        assert (body["type"], body["data"]["state"]) == ("job.completed", "succeeded")
        assert body["data"]["result"] == response.json()
        assert body["data"]["poll_url"] == f"/v1/jobs/{body['data']['id']}"
        assert "problem" not in body["data"]


async def test_a_failed_call_is_told_as_its_problem(
    client: httpx.AsyncClient, node: FakeNode, webhooks: Webhooks, tenant_key: dict[str, str]
) -> None:
    """The caller reads the problem, and so does the callback."""
    node.content.error = PromptTooLong("prompt and reply must fit 512 tokens, got 600")
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, "callback_url": CALLBACK})
    assert response.status_code == 422
    (delivery,) = await deliveries(webhooks, 1)
    body = event(delivery)
    assert (body["type"], body["data"]["state"]) == ("job.failed", "failed")
    assert body["data"]["problem"] == response.json()
    assert "result" not in body["data"]


async def test_a_call_without_a_callback_is_no_job_and_no_event(
    client: httpx.AsyncClient, webhooks: Webhooks, tenant_key: dict[str, str]
) -> None:
    """An endpoint hears of jobs, not of every call that was answered in time."""
    await webhooks.endpoints.create("acme", "https://hooks.example.com/", (), "")
    assert (await client.post("/v1/content", headers=tenant_key, json=BRIEF)).status_code == 200
    await asyncio.sleep(0.05)
    assert (await webhooks.deliveries.page("acme", cursor=None, limit=10)).deliveries == ()


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com/", "https://127.0.0.1/", "https://nowhere.example.com/", "ftp:x"]
)
async def test_a_callback_that_must_not_be_called_is_refused_before_a_job_is_made(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], url: str
) -> None:
    """422 that names the field; nothing is generated, and there is no job."""
    response = await client.post("/v1/content", headers=tenant_key, json={**BRIEF, "callback_url": url})
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, "destination_refused")
    assert [item["field"] for item in problem["errors"]] == ["callback_url"]
    assert node.content.calls == []
    assert (await client.get("/v1/jobs", headers=tenant_key)).json()["jobs"] == []


def finished(state: JobState, status: int, callback_url: str | None) -> Job:
    order = Order("acme", "/v1/content", "{}", "req_1", callback_url)
    answer = Answer(status, '{"text":"Guten Tag."}')
    return Job("job_" + "0" * 28, order, state, utc_now(), answer=answer)


async def test_hearing_of_a_job_again_queues_nothing_twice(webhooks: Webhooks) -> None:
    """Subscribers hear of a job at least once; its receivers are told once."""
    subscriber = JobWebhooks(webhooks.deliveries)
    for _ in range(3):
        await subscriber.finished(finished(JobState.SUCCEEDED, 200, CALLBACK))
    assert len(await deliveries(webhooks, 1)) == 1


async def test_a_callback_that_is_no_longer_allowed_does_not_silence_the_endpoints() -> None:
    """The operator narrowed the tenant's callback hosts after the job was accepted."""
    webhooks = fake_webhooks(WebhooksConfig(callback_hosts={"acme": ("other.example.com",)}))
    endpoint = await webhooks.endpoints.create("acme", "https://hooks.example.com/", (), "")
    await JobWebhooks(webhooks.deliveries).finished(finished(JobState.SUCCEEDED, 200, CALLBACK))
    assert [item.endpoint_id for item in await deliveries(webhooks, 1)] == [endpoint.id]


async def test_a_cancelled_job_is_told_as_failed(
    client: httpx.AsyncClient, node: FakeNode, webhooks: Webhooks, tenant_key: dict[str, str]
) -> None:
    """The state says that it was cancelled, the problem that nothing came of it."""
    node.content.delay_s = 60
    headers = {**tenant_key, "Prefer": "respond-async"}
    job = (await client.post("/v1/content", headers=headers, json={**BRIEF, "callback_url": CALLBACK})).json()
    await client.post(f"/v1/jobs/{job['id']}/cancel", headers=tenant_key)
    (delivery,) = await deliveries(webhooks, 1)
    body = event(delivery)
    assert (body["type"], body["data"]["state"]) == ("job.failed", "cancelled")
    assert (body["data"]["id"], body["data"]["problem"]["code"]) == (job["id"], "job_cancelled")
