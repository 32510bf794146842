"""`POST /v1/content` with `stream`."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from agent.commission import Commission
from agent.config import AgentConfig, TenantSettings
from agent.episode import Reply
from agent.errors import EngineDead
from agent.ports import Delta
from service.config import NodeConfig
from service.http import sse
from service.http.agent_node import AgentNode
from service.http.fakes import FakeContent, FakeNode, served

BRIEF = {"kind": "create", "language": "en", "instructions": "A bell.", "stream": True}


def events(text: str) -> Iterator[tuple[str, Any]]:
    """Name and data of every event, comments left out."""
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            yield lines["event"], json.loads(lines["data"])


class Broken(FakeContent):
    """Tells a word, and fails."""

    async def write(self, commission: Commission) -> Reply:
        assert commission.listener is not None
        commission.listener(Delta("Once "))
        await asyncio.sleep(0.02)
        raise self.error or EngineDead("gone")


async def test_the_text_comes_in_deltas_and_then_the_whole_reply(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """The deltas together are the text; `done` is what the same request gets without `stream`, times aside."""
    agent_node.says = "This is the new bell for your bicycle."
    response = await agent_client.post("/v1/content", headers=tenant_key, json=BRIEF)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
    *deltas, (last, reply) = events(response.text)
    assert {name for name, _ in deltas} == {"delta"}
    assert "".join(data["text"] for _, data in deltas) == agent_node.says
    assert {data["language"] for _, data in deltas} == {"en"}
    whole = (await agent_client.post("/v1/content", headers=tenant_key, json=BRIEF | {"stream": False})).json()
    assert last == "done"
    assert {**reply, "timing": None, "request_id": None} == {**whole, "timing": None, "request_id": None}
    assert reply["request_id"] == response.headers["X-Request-Id"]


async def test_words_that_come_fast_are_sent_together(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """Fifty words 2 ms apart take about 100 ms: at 30 ms from one event to the next that is a handful of events. The
    upper bound allows a machine that is five times slower."""
    agent_node.engine.pause_s = 0.002
    agent_node.says = "word " * 50
    response = await agent_client.post("/v1/content", headers=tenant_key, json=BRIEF)
    deltas = [data["text"] for name, data in events(response.text) if name == "delta"]
    assert "".join(deltas) == agent_node.says
    assert 1 < len(deltas) <= 25


async def test_several_languages_share_a_stream(
    agent_client: httpx.AsyncClient, agent_node: AgentNode, tenant_key: dict[str, str]
) -> None:
    """Each delta says which language it is of."""
    agent_node.engine.pause_s = 0.002
    agent_node.says = "one two three"
    body = {**BRIEF, "language": None, "languages": ["en", "de"]}
    response = await agent_client.post("/v1/content", headers=tenant_key, json=body)
    *deltas, (_, reply) = events(response.text)
    for language in ("en", "de"):
        assert "".join(data["text"] for _, data in deltas if data["language"] == language) == agent_node.says
    assert [result["language"] for result in reply["results"]] == ["en", "de"]


async def test_a_tenant_whose_calls_are_known_by_their_body_may_stream(
    client: httpx.AsyncClient, node: FakeNode, tenants: dict[str, TenantSettings], tenant_key: dict[str, str]
) -> None:
    """The same body twice is two streams; one whose own headers ask for a key is refused, for a stream is not kept."""
    tenants["tenant-key"] = tenants["tenant-key"].model_copy(update={"idempotency": "body"})
    for _ in range(2):
        response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
        assert response.status_code == 200, response.text
    assert len(node.content.calls) == 2
    for header in ({"Idempotency-Key": "bell"}, {"X-Idempotency-Mode": "body"}):
        refused = await client.post("/v1/content", headers=tenant_key | header, json=BRIEF)
        assert [error["field"] for error in refused.json()["errors"]] == ["stream"]


async def test_a_failure_before_the_first_text_has_its_status(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str]
) -> None:
    """The stream has not begun, so the caller gets the same problem as without it."""
    node.content.error = EngineDead("gone")
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    assert (response.status_code, response.json()["code"]) == (503, "engine_unavailable")


@pytest.mark.parametrize(
    ("error", "code"), [(EngineDead("gone"), "engine_unavailable"), (ValueError("secret"), "internal_error")]
)
async def test_a_failure_after_it_is_the_last_event(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], error: Exception, code: str
) -> None:
    """A problem as data; there is no `done`, and what nobody expected tells nothing of itself."""
    node.content = Broken(error=error)
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    (first, delta), (last, problem) = events(response.text)
    assert (first, delta["text"], last) == ("delta", "Once ", "error")
    assert (problem["code"], problem["request_id"]) == (code, response.headers["X-Request-Id"])
    assert "secret" not in response.text


@pytest.mark.parametrize("config", [NodeConfig(agent=AgentConfig(hold_s=0.6))])
async def test_a_stream_that_falls_silent_ends(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `hold_s` (0.6 s here) without text it is given up; until then comments show that the node is there."""
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.05)
    node.content.delay_s = 30
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    names = [name for name, _ in events(response.text)]
    assert names == ["delta", "error"]
    assert '"code":"generation_timeout"' in response.text
    assert response.text.count(": still working") >= 2
    assert node.content.cancelled.is_set()


@pytest.mark.parametrize("config", [NodeConfig()])
def test_hanging_up_ends_the_generation(app: FastAPI, node: FakeNode, tenant_key: dict[str, str]) -> None:
    """Behind a real server: the caller reads the first event and closes, and the work is cancelled."""
    node.content.delay_s = 30
    with served(app) as url:
        with httpx.stream("POST", f"{url}/v1/content", headers=tenant_key, json=BRIEF) as response:
            assert next(response.iter_lines()) == "event: delta"
        deadline = time.monotonic() + 5
        while not node.content.cancelled.is_set():
            assert time.monotonic() < deadline, "the generation went on"
            time.sleep(0.01)
