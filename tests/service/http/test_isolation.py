"""Every route against every kind of key, from the app's own list of routes and its OpenAPI document.

A route that is added later is tried here without a change: its path parameters and its body come from the document, and
where its collection takes a POST, the thing that it is asked for is another tenant's.
"""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Route

from agent.config import LanguageSettings, TenantSettings
from service.config import NodeConfig
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode, registry_of
from service.http.guard import AdminRoute, HookRoute, TenantRoute
from service.tenancy.record import Scope
from tests.service.http.conftest import BuildApp

OPEN_PATHS = {"/healthz", "/readyz", "/metrics", "/openapi.json"}
LANGUAGES = {"de": LanguageSettings(), "en": LanguageSettings()}
ACME = TenantSettings(id="acme", languages=LANGUAGES)
ZETA = TenantSettings(id="zeta", languages=LANGUAGES)
SCOPED = {f"only-{scope.value}": (scope,) for scope in Scope}
UNKNOWN_ID = "none-such"


@dataclass(frozen=True)
class Call:
    """One method of one route."""

    method: str
    route: Route
    operation: dict[str, Any]

    @property
    def kind(self) -> str:
        if isinstance(self.route, TenantRoute):
            return "tenant"
        if isinstance(self.route, HookRoute):
            return "hook"
        return "admin" if isinstance(self.route, AdminRoute) else "open"


@pytest.fixture
def node() -> FakeNode:
    return FakeNode(tenancy=registry_of([ACME, ZETA]))


@pytest.fixture
def app(build_app: BuildApp, node: FakeNode) -> FastAPI:
    keys = {"acme-key": ACME, "zeta-key": ZETA, **dict.fromkeys(SCOPED, ACME)}
    return build_app(node, FakeAuthenticator(keys, "admin-key", scopes=SCOPED), NodeConfig(), FakeMetrics())


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node") as client:
        yield client


def calls(app: FastAPI) -> Iterator[Call]:
    paths = app.openapi()["paths"]
    for route in app.routes:
        assert isinstance(route, Route), f"{route} is no plain route, and nothing here can tell who may call it"
        for method in sorted((route.methods or set()) - {"HEAD"}):
            yield Call(method, route, paths.get(route.path, {}).get(method.lower(), {}))


def example(app: FastAPI, call: Call) -> object:
    """A body that the document gives as an example; None for a route without one."""
    content = call.operation.get("requestBody", {}).get("content", {})
    if "application/json" not in content:
        return None
    schema = content["application/json"].get("schema", {})
    if "$ref" in schema:
        schema = app.openapi()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    examples = schema.get("examples") or [{}]
    return examples[0]


def path_of(app: FastAPI, call: Call, last_id: str = UNKNOWN_ID, **known: str) -> str:
    """The path with ids in it: those of ``known``, the last one ``last_id``, numbers where the document says so."""
    parameters = {item["name"]: item["schema"] for item in call.operation.get("parameters", ()) if item["in"] == "path"}
    names = re.findall(r"{(\w+)", call.route.path)
    values = {
        name: "9" if parameters.get(name, {}).get("type") == "integer" else known.get(name, UNKNOWN_ID)
        for name in names
    }
    if names and values[names[-1]] == UNKNOWN_ID:
        values[names[-1]] = last_id
    return re.sub(r"{(\w+)[^}]*}", lambda match: values[match.group(1)], call.route.path)


async def send(client: httpx.AsyncClient, app: FastAPI, call: Call, key: str | None, path: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
    return await client.request(call.method, path, headers=headers, json=example(app, call))


def message_of(response: httpx.Response) -> str:
    """What a refusal says, in a problem or in OpenAI's shape."""
    body = response.json()
    return str(body["error"]["message"] if "error" in body else body["detail"])


async def statuses(client: httpx.AsyncClient, app: FastAPI, key: str | None) -> dict[tuple[str, str, str], int]:
    """What each call gets with this key: kind, method and path template to status."""
    return {
        (call.kind, call.method, call.route.path): (await send(client, app, call, key, path_of(app, call))).status_code
        for call in calls(app)
    }


def test_every_route_is_guarded_or_known_to_be_open(app: FastAPI) -> None:
    """A route outside of the open paths uses one of the guarded route classes; hooks are called without a key."""
    unguarded = {call.route.path for call in calls(app) if call.kind == "open"}
    assert unguarded == OPEN_PATHS
    assert [call.route.path for call in calls(app) if call.kind == "hook"] == ["/v1/hooks/{hook_id}"]
    assert all(call.operation for call in calls(app) if call.kind != "open")


@pytest.mark.parametrize("key", [None, "nobodys-key"])
async def test_without_a_known_key_only_open_routes_answer(
    app: FastAPI, client: httpx.AsyncClient, key: str | None
) -> None:
    """401 before anything else is looked at: the bodies and ids here may be wrong as well."""
    for (kind, method, path), status in (await statuses(client, app, key)).items():
        assert (status == 401) == (kind not in {"open", "hook"}), (method, path, status)


async def test_the_admin_key_opens_admin_routes_alone(app: FastAPI, client: httpx.AsyncClient) -> None:
    """403 on tenants' routes: an operator does not act as a tenant by accident."""
    for (kind, method, path), status in (await statuses(client, app, "admin-key")).items():
        assert (status == 403) == (kind == "tenant"), (method, path, status)
        assert status != 401, (method, path)


async def test_a_tenants_key_opens_tenants_routes_alone(app: FastAPI, client: httpx.AsyncClient) -> None:
    """With every scope: 403 on admin routes, and neither 401 nor 403 on its own."""
    for (kind, method, path), status in (await statuses(client, app, "acme-key")).items():
        assert (status == 403) == (kind == "admin"), (method, path, status)
        assert status != 401, (method, path)


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_key_does_what_its_scope_says(app: FastAPI, client: httpx.AsyncClient, scope: Scope) -> None:
    """403 exactly where the document names another scope, and the answer names the one that is missing."""
    for call in calls(app):
        if call.kind != "tenant":
            continue
        needed = call.operation["x-coloq-scope"]
        response = await send(client, app, call, f"only-{scope.value}", path_of(app, call))
        let_in = needed in ("any", scope.value)
        beyond_its_own = call.route.name == "create_own_key" and let_in
        assert (response.status_code != 403) == (let_in and not beyond_its_own), (call.method, call.route.path)
        if not let_in:
            assert f"needs a key with the scope '{needed}'" in message_of(response)


async def test_what_one_tenant_made_does_not_exist_for_another(app: FastAPI, client: httpx.AsyncClient) -> None:
    """For each route with an id: acme makes the thing, zeta gets 404 for it, and acme still has it afterwards."""
    tried = []
    by_template = {(call.method, call.route.path): call for call in calls(app)}
    for call in calls(app):
        collection = call.route.path.partition("/{")[0]
        maker = by_template.get(("POST", collection))
        if call.kind != "tenant" or "{" not in call.route.path:
            continue
        made = await send(client, app, maker, "acme-key", collection) if maker is not None else None
        last_id = str(made.json()["id"]) if made is not None and made.is_success else UNKNOWN_ID
        path = path_of(app, call, last_id)
        response = await send(client, app, call, "zeta-key", path)
        assert response.status_code == 404, (call.method, path, response.text)
        if last_id != UNKNOWN_ID:
            own = await send(client, app, call, "acme-key", path)
            assert own.status_code != 404, (call.method, path, own.text)
            tried.append(call.route.path)
    assert {"/v1/keys/{key}", "/v1/keys/{key}/rotate"} <= set(tried)


async def test_admin_routes_tell_what_does_not_exist(app: FastAPI, client: httpx.AsyncClient) -> None:
    """An id that nobody made is 404 with the admin key, on every route with a text in its path."""
    for call in calls(app):
        if call.kind == "admin" and isinstance(call.route, APIRoute) and "{" in call.route.path:
            response = await send(client, app, call, "admin-key", path_of(app, call))
            assert response.status_code in (404, 422), (call.method, call.route.path, response.text)
