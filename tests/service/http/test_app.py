"""The app as a whole: every route against every key, and its OpenAPI document."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI
from starlette.routing import Route

from service.webhooks.events import EventType

OPEN_PATHS = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
BODIES: dict[str, dict[str, object]] = {
    "/v1/content": {"kind": "create", "language": "de", "instructions": "Eine Klingel."},
    "/admin/tuning/runs": {},
    "/v1/webhooks/endpoints": {"url": "https://hooks.example.com/"},
    "/v1/webhooks/endpoints/{endpoint_id}": {},
    "/v1/hooks-config": {
        "name": "shop",
        "mapping": {"kind": "create", "language": "de", "instructions": {"from": "title"}},
        "example": {"title": "Eine Klingel."},
    },
    "/v1/hooks-config/{hook_id}": {},
    "/v1/hooks-config/{hook_id}/preview": {},
    "/v1/hooks/{hook_id}": {},
}
HOOK_PATH = "/v1/hooks/{hook_id}"
OK = range(200, 300)
# What each kind of key gets on each kind of route. The fakes know no run and no policy beside 0, so a key that is let
# in gets a success or 404.
LET_IN = (*OK, 404)
EXPECTED: dict[str, dict[str, tuple[int, ...]]] = {
    "open": {"none": (*OK,), "wrong": (*OK,), "tenant": (*OK,), "admin": (*OK,)},
    "tenant": {"none": (401,), "wrong": (401,), "tenant": LET_IN, "admin": (403,)},
    "admin": {"none": (401,), "wrong": (401,), "tenant": (403,), "admin": LET_IN},
    # Whoever knows a hook's id may call it; nobody knows this one.
    "hook": {"none": (404,), "wrong": (404,), "tenant": (404,), "admin": (404,)},
}
UNKNOWN_IDS = {"run_id": "run_9", "version": "0", "endpoint_id": "ep_9", "delivery_id": "msg_9", "hook_id": "hook_9"}
KEYS: dict[str, dict[str, str]] = {
    "none": {},
    "wrong": {"Authorization": "Bearer nobodys-key"},
    "tenant": {"Authorization": "Bearer tenant-key"},
    "admin": {"Authorization": "Bearer admin-key"},
}


def kind_of(path: str) -> str:
    if path in OPEN_PATHS:
        return "open"
    if path == HOOK_PATH:
        return "hook"
    return "tenant" if path.startswith("/v1/") else "admin"


def calls(app: FastAPI) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        assert isinstance(route, Route)
        for method in (route.methods or set()) - {"HEAD"}:
            yield method, route.path


@pytest.mark.parametrize("key", KEYS)
async def test_every_route_takes_only_its_kind_of_key(app: FastAPI, client: httpx.AsyncClient, key: str) -> None:
    """Tenants' routes take tenants' keys, admin routes the admin key, probes need none; the rest is 401 or 403."""
    seen = []
    for method, template in calls(app):
        path = template.format(**UNKNOWN_IDS)
        body = BODIES.get(template) if method in {"POST", "PATCH"} else None
        response = await client.request(method, path, headers=KEYS[key], json=body)
        assert response.status_code in EXPECTED[kind_of(template)][key], (method, template, response.text)
        assert ("WWW-Authenticate" in response.headers) == (response.status_code == 401)
        seen.append((method, template))
    # 4 open routes, 1 of hooks' callers, 6 of the operator; of tenants 2, 13 for events out, 6 for hooks in.
    assert len(seen) == 4 + 1 + 6 + 2 + 13 + 6


async def test_a_key_is_checked_before_the_body_is_read(client: httpx.AsyncClient) -> None:
    """A stranger learns nothing about bodies: no key and a broken body is 401, not 400."""
    response = await client.post("/v1/content", content=b"{broken", headers={"Content-Type": "text/plain"})
    assert response.status_code == 401


def test_the_document_is_openapi_3_1_with_resolvable_references(app: FastAPI) -> None:
    """FastAPI's own OpenAPI model accepts the document, and every $ref points at something."""
    document = app.openapi()
    assert document["openapi"].startswith("3.1")
    OpenAPI.model_validate(document)
    for reference in references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert isinstance(target, dict)


def references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        for item in part:
            yield from references(item)


def operations(app: FastAPI) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in app.openapi()["paths"].items():
        for operation in item.values():
            yield path, operation


def test_operations_have_unique_ids_and_summaries(app: FastAPI) -> None:
    """Generated clients name their functions after operation ids."""
    found = [operation for _, operation in operations(app)]
    ids = [operation["operationId"] for operation in found]
    assert len(set(ids)) == len(ids) == 31
    assert {"create_content", "get_me", "start_run", "activate_policy"} <= set(ids)
    assert all(operation["summary"] and operation["description"] for operation in found)


def test_error_responses_are_documented_as_problems(app: FastAPI) -> None:
    """No route shows FastAPI's own validation error; guarded routes name 401 and 403 and their key."""
    assert "HTTPValidationError" not in json.dumps(app.openapi())
    for path, operation in operations(app):
        if path in OPEN_PATHS:
            assert "security" not in operation
            continue
        if path == HOOK_PATH:
            assert "security" not in operation
            assert {"403", "404"} <= operation["responses"].keys()
            continue
        assert {"401", "403"} <= operation["responses"].keys()
        scheme = "TenantKey" if path.startswith("/v1/") else "AdminKey"
        assert operation["security"] == [{scheme: []}]
        for status, response in operation["responses"].items():
            if not status.startswith("2"):
                assert list(response["content"]) == ["application/problem+json"]


def test_every_field_of_the_content_request_is_described_with_an_example(app: FastAPI) -> None:
    """The document is what builders read."""
    properties = app.openapi()["components"]["schemas"]["ContentRequest"]["properties"]
    assert [
        name for name, schema in properties.items() if not (schema.get("description") and schema.get("examples"))
    ] == []
    assert len(properties) == 14


def test_events_are_documented_as_webhooks(app: FastAPI) -> None:
    """One operation for each type, with the type in its body and the headers to verify it with."""
    document = app.openapi()
    assert document["webhooks"].keys() == set(EventType)
    for event_type, item in document["webhooks"].items():
        body = item["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert document["components"]["schemas"][body]["properties"]["type"]["const"] == event_type
        assert [parameter["name"] for parameter in item["post"]["parameters"]] == [
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
        ]


async def test_pages_that_load_a_cdn_are_off(client: httpx.AsyncClient) -> None:
    """Neither Swagger UI nor ReDoc: they would not work without a way out."""
    for path in ("/docs", "/redoc"):
        assert (await client.get(path)).status_code == 404
