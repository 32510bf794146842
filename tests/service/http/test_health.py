"""Probes and metrics."""

from dataclasses import replace

import httpx

from service.http.fakes import FakeNode


async def test_liveness_needs_neither_engine_nor_store(client: httpx.AsyncClient, node: FakeNode) -> None:
    """A node that is not ready is alive."""
    node.state = replace(node.state, ready=False, engine="restarting", store="unreachable")
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_readiness_shows_each_part(client: httpx.AsyncClient) -> None:
    """200 while content can be served."""
    response = await client.get("/readyz")
    assert response.status_code == 200
    assert response.json() == {
        "ready": True,
        "engine": "ready",
        "store": "ready",
        "tuning": "idle",
        "policy_version": 3,
    }


async def test_a_node_that_cannot_serve_is_503_with_its_parts(client: httpx.AsyncClient, node: FakeNode) -> None:
    """The body is still the health, so that an operator sees which part it is."""
    node.state = replace(node.state, ready=False, engine="restarting")
    response = await client.get("/readyz")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
    assert response.json()["engine"] == "restarting"


async def test_a_failed_tuning_run_leaves_the_node_ready(client: httpx.AsyncClient, node: FakeNode) -> None:
    """Serving outlives training."""
    node.state = replace(node.state, tuning="stopped: TrainerFailed")
    assert (await client.get("/readyz")).status_code == 200


async def test_metrics_are_prometheus_text(client: httpx.AsyncClient) -> None:
    """The media type is the one that scrapers ask for; one earlier request was counted."""
    await client.get("/healthz")
    response = await client.get("/metrics")
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert response.text == "# TYPE coloq_requests counter\ncoloq_requests_total 1\n"
