"""Webhooks of a whole node: a platform's call in, events out, over HTTP on a real engine."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from service.secrets import new_key
from tests.integration.node_process import CONFIG, NodeProcess
from tests.service.webhooks.receiver import Receiver, receiving
from tests.tiny_model import save_tiny_llama

pytestmark = pytest.mark.engine

WEBHOOKS = """
[webhooks]
allow_http = true
allowed_ports = [{port}]
allowed_networks = ["127.0.0.0/8"]

[[tenants]]
"""


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


async def test_a_call_in_is_answered_and_events_go_out(tmp_path: Path) -> None:
    """A plain webhook module gets a reply without a key; the endpoint is told of the test, the run and its policy."""
    receiver = Receiver()
    model = save_tiny_llama(tmp_path / "model")
    async with receiving(receiver) as port:
        config = CONFIG.replace("\n[[tenants]]\n", WEBHOOKS.replace("{port}", str(port)))
        node = NodeProcess(tmp_path, model, new_key("acme"), config=config)
        await asyncio.to_thread(node.start)
        try:
            await _webhooks_work(node, receiver, port)
        finally:
            node.kill()


async def _webhooks_work(node: NodeProcess, receiver: Receiver, port: int) -> None:
    async with (
        httpx.AsyncClient(base_url=node.url, headers=node.tenant_headers, timeout=60) as http,
        httpx.AsyncClient(base_url=node.url, timeout=60) as platform,
    ):
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
        run = {"steps": 1, "languages": ["en"], "gate": False}
        started = await http.post("/admin/tuning/runs", json=run, headers=node.admin_headers)
        assert started.status_code == 201, started.text
        await until(lambda: len(receiver.bodies) >= 3)
        assert "coloq_webhook_attempts_total" in (await http.get("/metrics")).text
    told = events(receiver, endpoint["secret"])
    assert told["tuning.run.finished"] == {"id": started.json()["id"], "state": "succeeded", "published": [1]}
    assert told["policy.published"] == {"version": 1, "previous_version": 0}
    assert told["webhook.test"] == {"message": "A test event. Nothing has happened."}
