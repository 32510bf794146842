"""What surrounds every request: ids, counting, logging, limits, the last boundary."""

import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI

from service.http.fakes import FakeMetrics, FakeNode, served
from service.http.middleware import new_request_id

SECRET = "Geheimrezept"
BRIEF = {"kind": "create", "language": "de", "instructions": SECRET}


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """Events that were logged, with their context."""
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as events:
        yield events


def test_request_ids_are_random_and_url_safe() -> None:
    """22 characters of base64url hold 16 bytes."""
    ids = {new_request_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"req_[A-Za-z0-9_-]{22}", request_id) for request_id in ids)


async def test_every_response_has_an_id_of_ours(client: httpx.AsyncClient) -> None:
    """Errors too; an id from outside is not taken over. A problem carries the header's id."""
    ok = await client.get("/healthz", headers={"X-Request-Id": "mine"})
    missing = await client.get("/nothing")
    assert ok.headers.get_list("X-Request-Id") != ["mine"]
    assert ok.headers["X-Request-Id"] != missing.headers["X-Request-Id"]
    assert missing.json()["request_id"] == missing.headers["X-Request-Id"]


async def test_requests_are_counted_by_route_template(
    client: httpx.AsyncClient, metrics: FakeMetrics, admin_key: dict[str, str]
) -> None:
    """Never by raw path, or an attacker's paths would fill the registry."""
    await client.get("/admin/tuning/runs/run_77", headers=admin_key)
    await client.get("/nothing/at/all")
    await client.request("BREW", "/healthz")
    assert [(seen.method, seen.route, seen.status) for seen in metrics.observations] == [
        ("GET", "/admin/tuning/runs/{run_id}", 404),
        ("GET", "unmatched", 404),
        ("OTHER", "/healthz", 405),
    ]
    assert all(0 <= seen.duration_s < 5 for seen in metrics.observations)


async def test_a_request_is_logged_with_its_context_and_without_its_content(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], log: list[Any]
) -> None:
    """Request id and tenant are bound; neither prompt nor reply nor key is in the log."""
    node.content.text = "Antworttext."
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    (event,) = log
    assert event["event"] == "request_handled"
    assert event["request_id"] == response.headers["X-Request-Id"]
    assert (event["tenant"], event["route"], event["status"]) == ("acme", "/v1/content", 200)
    assert not any(text in str(log) for text in (SECRET, "Antworttext", "tenant-key"))
    assert structlog.contextvars.get_contextvars() == {}


async def test_an_unexpected_error_is_a_500_without_internals_logged_once(
    client: httpx.AsyncClient, node: FakeNode, tenant_key: dict[str, str], log: list[Any]
) -> None:
    """The exception's message may quote the prompt: it is neither told nor logged; its type and place are logged."""
    node.content.error = KeyError(SECRET)
    response = await client.post("/v1/content", headers=tenant_key, json=BRIEF)
    assert response.status_code == 500
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["code"] == "internal_error"
    assert response.json()["request_id"] == response.headers["X-Request-Id"]
    broke = [event for event in log if event["log_level"] == "error"]
    assert [(event["event"], event["error"]) for event in broke] == [("request_broke", "KeyError")]
    assert broke[0]["request_id"] == response.headers["X-Request-Id"]
    assert re.fullmatch(r"http/fakes\.py:\d+ write", broke[0]["where"][-1])
    assert SECRET not in str(log)
    assert "KeyError" not in response.text


async def test_a_body_over_the_limit_is_413(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> None:
    """The limit is 2,048 bytes here; the declared length is enough to refuse."""
    headers = {**tenant_key, "Content-Type": "application/json"}
    response = await client.post("/v1/content", headers=headers, content=b" " * 2049)
    assert response.status_code == 413
    assert response.json()["code"] == "body_too_large"
    assert response.json()["detail"] == "the body must be at most 2048 bytes, got 2049 or more"


async def test_a_streamed_body_is_cut_off_at_the_limit(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> None:
    """Without a declared length the bytes are counted: 3 chunks of 1,024 are read, and no more."""
    num_chunks = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal num_chunks
        for _ in range(100):
            num_chunks += 1
            yield b" " * 1024

    headers = {**tenant_key, "Content-Type": "application/json"}
    response = await client.post("/v1/content", headers=headers, content=chunks())
    assert response.status_code == 413
    assert num_chunks == 3


async def test_a_body_at_the_limit_is_read(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> None:
    """2,048 bytes of blanks are within the limit, and not JSON."""
    headers = {**tenant_key, "Content-Type": "application/json"}
    response = await client.post("/v1/content", headers=headers, content=b" " * 2048)
    assert response.status_code == 400


@pytest.mark.parametrize(
    "body",
    [b"{broken", b"\xff\xfe{", b'{"seed":' + b"9" * 1900, b'{"kind":'],
    ids=["broken", "not utf-8", "long number", "cut"],
)
async def test_a_body_that_is_not_json_is_400(
    client: httpx.AsyncClient, tenant_key: dict[str, str], body: bytes
) -> None:
    """Whatever is wrong with it."""
    headers = {**tenant_key, "Content-Type": "application/json"}
    response = await client.post("/v1/content", headers=headers, content=body)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_json")
    assert response.json()["detail"].startswith("the body must be JSON")


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/vnd.acme+json", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        (None, 415),
    ],
)
async def test_a_body_must_be_declared_as_json(
    client: httpx.AsyncClient, tenant_key: dict[str, str], media_type: str | None, status: int
) -> None:
    """415 says which header to send."""
    headers = {**tenant_key, **({"Content-Type": media_type} if media_type else {})}
    content = b'{"kind": "create", "language": "de", "instructions": "x"}'
    response = await client.post("/v1/content", headers=headers, content=content)
    assert response.status_code == status
    if status == 415:
        assert "'Content-Type: application/json'" in response.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/content", "/v1/chat/completions", "hook"])
async def test_a_compressed_body_is_415(client: httpx.AsyncClient, tenant_key: dict[str, str], path: str) -> None:
    """It says which header to leave out, not that JSON was no JSON."""
    if path == "hook":
        mapping = {"kind": "create", "language": "de", "instructions": {"from": "t"}}
        hook = {"name": "h", "mapping": mapping, "example": {"t": "x"}}
        path = (await client.post("/v1/hooks-config", headers=tenant_key, json=hook)).json()["path"]
    headers = tenant_key | {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response = await client.post(path, headers=headers, content=gzip.compress(json.dumps(BRIEF).encode()))
    assert response.status_code == 415
    assert "without Content-Encoding, got 'gzip'" in response.text


async def test_an_unknown_path_is_404_with_the_nearest_route(client: httpx.AsyncClient) -> None:
    """A typing mistake in a scenario is found at once; a trailing slash is a mistake, not a redirect."""
    for path in ("/v1/contents", "/v1/content/"):
        response = await client.post(path)
        assert (response.status_code, response.json()["code"]) == (404, "route_not_found")
        assert "did you mean /v1/content?" in response.json()["detail"]


async def test_a_wrong_method_is_405_with_every_allowed_one(client: httpx.AsyncClient) -> None:
    """Two handlers share the path /admin/tuning/runs; Allow names the methods of both."""
    response = await client.put("/admin/tuning/runs")
    assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")
    assert response.headers["Allow"] == "GET, POST"


def test_head_has_the_head_of_gets_answer(app: FastAPI, tenant_key: dict[str, str]) -> None:
    """And no body, on one connection with what follows; monitors ask so whether a node is up."""
    with served(app) as url, httpx.Client(base_url=url, headers=tenant_key) as caller:
        for path, status in (("/healthz", 200), ("/v1/me", 200), ("/v1/jobs/job_x", 404), ("/v1/content", 405)):
            head, answer = caller.head(path), caller.get(path)
            assert (head.status_code, answer.status_code, head.content) == (status, status, b"")
            assert head.headers["Content-Length"] == str(len(answer.content))
            assert head.headers["Content-Type"] == answer.headers["Content-Type"]


async def test_an_instance_is_the_encoded_path(client: httpx.AsyncClient) -> None:
    """A URI reference, whatever the path holds."""
    response = await client.get("/a%20b%3Fc")
    assert response.json()["instance"] == "/a%20b%3Fc"


async def test_lifespan_events_pass_through(app: FastAPI) -> None:
    """The middleware concerns requests only."""
    sent: list[Any] = []
    incoming = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

    async def receive() -> Any:
        return incoming.pop()

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
