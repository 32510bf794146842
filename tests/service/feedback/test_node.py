"""Feedback through a whole node on a real store: from a reply to a pair, and to the metrics."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest_asyncio

from service.bench.stored_node import StoredNode, open_stored_node
from service.config import NodeConfig
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator
from service.secrets import hash_key

EDITED = "Our new bicycle bell is here, and it rings well."


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[StoredNode]:
    async with open_stored_node(tmp_path, NodeConfig(), hash_key("k1")) as node:
        yield node


async def test_an_edit_of_a_reply_becomes_an_exported_pair(node: StoredNode) -> None:
    """Asked for under an idempotency key, edited under it, exported; a German edit of the English text is left out."""
    tenant = node.keys.caller("k1")
    assert tenant is not None
    auth = FakeAuthenticator({"k1": tenant.tenant}, "admin-key")
    app = create_app(node, auth, NodeConfig(), node.metrics)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        client.headers["Authorization"] = "Bearer k1"
        for number, text in enumerate([EDITED, "Unsere neue Fahrradklingel ist da und sie klingt."]):
            brief = {"kind": "create", "language": "en", "instructions": f"A bell, number {number}."}
            written = await client.post("/v1/content", json=brief, headers={"Idempotency-Key": f"order {number}"})
            edit = {"idempotency_key": f"order {number}", "edit": {"text": text, "published": True}}
            given = await client.post("/v1/feedback", json=edit)
            assert given.json()["request_id"] == written.json()["request_id"], given.text
        client.headers["Authorization"] = "Bearer admin-key"
        exported = await client.get("/admin/rewards/en/pairs")
        shown = (await client.get(f"/admin/requests/{written.json()['request_id']}")).json()
        metrics = (await client.get("/metrics")).text
    (pair,) = [json.loads(line) for line in exported.text.splitlines()]
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == (EDITED, written.json()["text"])
    assert shown["feedback"][0]["edit"]["published"] is True
    assert f'coloq_feedback_total{{kind="edit",language="en",tenant="{tenant.tenant.id}"}} 2.0' in metrics
    assert 'coloq_preference_pairs{language="en",source="edit"} 1.0' in metrics
    assert 'coloq_preference_pairs_left_out{language="en",reason="language"} 1.0' in metrics
