"""The app as a whole: its OpenAPI document. Every route against every key is in test_isolation.py."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.openapi.models import OpenAPI

from service.http.openai.errors import speaks_openai
from service.http.problems import ROWS, STATUS_ROWS
from service.webhooks.events import EventType

OPEN_PATHS = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
HOOK_PATH = "/v1/hooks/{hook_id}"


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
    assert len(set(ids)) == len(ids) >= 52
    assert {"create_content", "create_chat_completion", "get_me", "start_run", "activate_policy"} <= set(ids)
    assert all(operation["summary"] and operation["description"] for operation in found)


def test_error_responses_are_documented_as_problems(app: FastAPI) -> None:
    """No route shows FastAPI's own validation error; guarded routes name 401 and 403 and their key. OpenAI's routes
    have its errors."""
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
                expected = "application/json" if speaks_openai(path) else "application/problem+json"
                assert list(response["content"]) == [expected], (path, status)


def test_every_code_of_a_problem_is_documented(app: FastAPI) -> None:
    """The document's description has a row per code with its status; 499 is read by nobody."""
    description = app.openapi()["info"]["description"]
    for row in (*ROWS.values(), *STATUS_ROWS.values()):
        if row.status != 499:
            assert f"| `{row.code}` | {row.status} | {row.title}." in description
    assert "client_gone" not in description


def test_every_field_of_the_content_request_is_described_with_an_example(app: FastAPI) -> None:
    """The document is what builders read."""
    properties = app.openapi()["components"]["schemas"]["ContentRequest"]["properties"]
    assert [
        name for name, schema in properties.items() if not (schema.get("description") and schema.get("examples"))
    ] == []
    assert len(properties) == 14 + 9 + 2 + 1


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


def test_tenants_routes_document_their_limits(app: FastAPI) -> None:
    """429 and the RateLimit headers are on each of them, and on no other."""
    for path, operation in operations(app):
        is_tenants = path.startswith("/v1/")
        assert ("429" in operation["responses"]) == is_tenants, path
        ok = next(response for status, response in operation["responses"].items() if status.startswith("2"))
        assert ("RateLimit" in ok.get("headers", {})) == is_tenants, path


def test_every_list_and_text_of_a_request_is_bounded(app: FastAPI) -> None:
    """Lists name their most items, texts their most characters, a pattern, a format or their values."""
    schemas = app.openapi()["components"]["schemas"]
    waiting = [
        operation["requestBody"]["content"]["application/json"]["schema"]
        for _, operation in operations(app)
        if "requestBody" in operation
    ]
    seen: set[str] = set()
    while waiting:
        schema = waiting.pop()
        name = schema.get("$ref", "").rpartition("/")[2]
        if name and name not in seen:
            seen.add(name)
            waiting.append(schemas[name])
        bounds = {"enum", "const", "maxLength", "pattern", "format", "maxItems"}
        assert schema.get("type") not in ("array", "string") or bounds & schema.keys(), schema
        waiting += [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
        waiting += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    assert "TenantSettings" in seen
