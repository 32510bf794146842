"""Webhooks of a whole node: a platform's call in, events out, over HTTP on a real engine."""

import asyncio
from collections.abc import Callable

import httpx
import pytest
from standardwebhooks import Webhook

from tests.integration.node_process import NodeProcess
from tests.service.webhooks.receiver import Receiver, receiving

pytestmark = pytest.mark.engine


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.05)


def events(receiver: Receiver, secret: str) -> dict[str, dict[str, object]]:
    """Data of the events that came, by type; each verified."""
    came = [
        Webhook(secret).verify(body, headers) for body, headers in zip(receiver.bodies, receiver.headers, strict=False)
    ]
    return {event["type"]: event["data"] for event in came}


async def test_a_call_in_is_answered_and_events_go_out(node: NodeProcess) -> None:
    """A plain webhook module gets a reply without a key; the endpoint is told of the test, the run and its policy."""
    receiver = Receiver()
    async with (
        receiving(receiver, port=node.receiver_port) as port,
        httpx.AsyncClient(base_url=node.url, headers=node.tenant_headers, timeout=60) as http,
        httpx.AsyncClient(base_url=node.url, timeout=60) as platform,
    ):
        before = (await http.get("/readyz")).json()["policy_version"]
        endpoint = (await http.post("/v1/webhooks/endpoints", json={"url": f"http://localhost:{port}/"})).json()
        assert (await http.post(f"/v1/webhooks/endpoints/{endpoint['id']}/test")).status_code == 202
        hook = {
            "name": "shop",
            "mapping": {"kind": "create", "language": "en", "instructions": {"from": "title"}, "max_tokens": 16},
            "example": {"title": "Write about a chair."},
        }
        path = (await http.post("/v1/hooks-config", json=hook)).json()["path"]
        for number in range(8):
            reply = await platform.post(path, data={"title": f"Write about chair {number}."})
            assert reply.status_code == 200, reply.text
            assert reply.json()["language"] == "en"
        request = {"steps": 1, "languages": ["en"], "gate": False}
        started = await http.post("/admin/tuning/runs", json=request, headers=node.admin_headers)
        assert started.status_code == 201, started.text
        await until(lambda: len(receiver.bodies) >= 3)
        assert "coloq_webhook_attempts_total" in (await http.get("/metrics")).text
        run = (await http.get(f"/admin/tuning/runs/{started.json()['id']}", headers=node.admin_headers)).json()
        # No later test is told to a receiver that is gone.
        assert (await http.delete(f"/v1/webhooks/endpoints/{endpoint['id']}")).status_code == 204
    (version,) = run["published"]
    told = events(receiver, endpoint["secret"])
    assert told["tuning.run.finished"] == {"id": started.json()["id"], "state": "succeeded", "published": [version]}
    assert told["policy.published"] == {"version": version, "previous_version": before}
    assert told["webhook.test"] == {"message": "A test event. Nothing has happened."}
