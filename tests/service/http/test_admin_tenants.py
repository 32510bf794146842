"""The operator's routes of tenants, keys and the audit log, and the tenants' own keys."""

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from agent.config import LanguageSettings, LimitSettings, TenantSettings
from agent.errors import StoreError
from service.config import NodeConfig
from service.http.fakes import FakeMetrics, FakeNode
from service.http.keys import NodeKeys
from service.secrets import AdminKey, hash_key
from service.tenancy.fakes import MemoryTenantStore
from service.tenancy.registry import TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenants import Tenants
from service.webhooks.hook import Check
from tests.service.http.conftest import BuildApp

ADMIN_HASH = hash_key("admin-key")
ADMIN_ID = f"admin_{ADMIN_HASH[7:15]}"
ACME = {"id": "acme", "languages": {"de": {"address": "formal"}}}
BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}


@pytest.fixture
def store() -> MemoryTenantStore:
    return MemoryTenantStore()


@pytest.fixture
def tenants() -> Tenants:
    return Tenants()


@pytest.fixture
def node(store: MemoryTenantStore, tenants: Tenants) -> FakeNode:
    rules = TenantRules(labels={"de", "en"}, parts={"fidelity"})
    return FakeNode(tenancy=TenantRegistry(store, tenants, rules))


@pytest.fixture
def app(build_app: BuildApp, node: FakeNode, tenants: Tenants) -> FastAPI:
    """Keys are the registry's: what a route changes is what the next request meets."""
    return build_app(node, NodeKeys(tenants, AdminKey(ADMIN_HASH)), NodeConfig(), FakeMetrics())


@pytest.fixture
async def operator(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": "Bearer admin-key"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node", headers=headers) as client:
        yield client


async def new_key(operator: httpx.AsyncClient, **body: object) -> dict[str, str]:
    """Headers with a fresh key of acme's."""
    made = await operator.post("/admin/tenants/acme/keys", json={"name": "test", "scopes": ["generate"], **body})
    assert made.status_code == 201, made.text
    return {"Authorization": f"Bearer {made.json()['key']}"}


async def test_a_tenant_is_made_read_changed_and_deleted(operator: httpx.AsyncClient) -> None:
    """Every answer shows the settings that are in force."""
    made = await operator.post("/admin/tenants", json=ACME)
    assert (made.status_code, made.headers["Location"]) == (201, "/admin/tenants/acme")
    assert made.json()["settings"]["languages"]["de"]["address"] == "formal"
    assert (made.json()["origin"], made.json()["num_keys"]) == ("admin", 0)
    put = await operator.put("/admin/tenants/acme", json={**ACME, "weight": 3})
    assert (put.json()["settings"]["weight"], put.json()["revision"]) == (3.0, 2)
    listed = (await operator.get("/admin/tenants")).json()["tenants"]
    assert [item["settings"]["id"] for item in listed] == ["acme"]
    assert (await operator.delete("/admin/tenants/acme")).status_code == 204
    assert (await operator.get("/admin/tenants/acme")).status_code == 404


async def test_a_deleted_tenant_leaves_no_receivers(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Its endpoints and hooks are gone, also when a tenant of the same id is made later; another's stay."""
    await operator.post("/admin/tenants", json=ACME)
    for tenant in ("acme", "zeta"):
        await node.webhooks.endpoints.create(tenant, "https://hooks.example.com/", (), "")
        await node.webhooks.hooks.create(tenant, "shop", {"kind": "create"}, {}, Check())
    assert (await operator.delete("/admin/tenants/acme")).status_code == 204
    await operator.post("/admin/tenants", json=ACME)
    assert await node.webhooks.endpoints.list("acme") == []
    assert await node.webhooks.hooks.list("acme") == []
    assert len(await node.webhooks.endpoints.list("zeta")) == len(await node.webhooks.hooks.list("zeta")) == 1


async def test_a_patch_changes_what_it_names(operator: httpx.AsyncClient) -> None:
    """RFC 7396: a value replaces, null takes away, the rest stays."""
    await operator.post("/admin/tenants", json={**ACME, "limits": {"requests_per_minute": 5, "tokens_per_day": 9}})
    patch = {"limits": {"requests_per_minute": None}, "languages": {"en": {}}}
    settings = (await operator.patch("/admin/tenants/acme", json=patch)).json()["settings"]
    assert settings["limits"]["requests_per_minute"] is None
    assert settings["limits"]["tokens_per_day"] == 9
    assert settings["languages"]["de"]["address"] == "formal"
    assert sorted(settings["languages"]) == ["de", "en"]


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/admin/tenants", {**ACME, "id": "zeta", "languages": {"xx": {}}}, "languages.xx"),
        ("POST", "/admin/tenants", {"id": "zeta", "languages": {}}, "languages"),
        ("PUT", "/admin/tenants/acme", {**ACME, "id": "zeta"}, "id"),
        ("PATCH", "/admin/tenants/acme", {"limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ("PATCH", "/admin/tenants/acme", {"colour": "red"}, "colour"),
        ("POST", "/admin/tenants/acme/keys", {"name": "x", "scopes": ["everything"]}, "scopes.0"),
        ("POST", "/admin/tenants/acme/keys", {"name": "x", "scopes": []}, "scopes"),
    ],
)
async def test_what_breaks_a_rule_is_422_naming_the_field(
    operator: httpx.AsyncClient, method: str, path: str, body: dict[str, object], field: str
) -> None:
    """And nothing changes."""
    await operator.post("/admin/tenants", json=ACME)
    response = await operator.request(method, path, json=body)
    assert response.status_code == 422, response.text
    assert [error["field"] for error in response.json()["errors"]] == [field]
    assert (await operator.get("/admin/tenants/acme")).json()["revision"] == 1


async def test_a_change_is_in_force_for_the_next_request(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """A language is taken away, a limit set, the key revoked: 422, 429 and 401 in turn, without a restart."""
    await operator.post("/admin/tenants", json={**ACME, "languages": {"de": {}, "en": {}}})
    key = await new_key(operator)
    german = {"json": BRIEF, "headers": key}
    assert (await operator.post("/v1/content", **german)).status_code == 200  # type: ignore[arg-type]
    await operator.put("/admin/tenants/acme", json={"id": "acme", "languages": {"en": {}}})
    assert (await operator.post("/v1/content", **german)).status_code == 422  # type: ignore[arg-type]
    await operator.patch("/admin/tenants/acme", json={"limits": {"requests_per_day": 1}})
    limited = await operator.post("/v1/content", **german)  # type: ignore[arg-type]
    assert limited.status_code == 429
    (listed,) = (await operator.get("/admin/tenants/acme/keys")).json()["keys"]
    await operator.delete(f"/admin/tenants/acme/keys/{listed['id']}")
    assert (await operator.post("/v1/content", **german)).status_code == 401  # type: ignore[arg-type]


async def test_a_limit_is_429_with_its_name_and_headers(operator: httpx.AsyncClient) -> None:
    """60 / 2 = 30 s to the next request; the headers stand on what was let in and on what was refused."""
    await operator.post("/admin/tenants", json=ACME)
    key = await new_key(operator, limits={"requests_per_minute": 2})
    for left in (1, 0):
        response = await operator.post("/v1/content", json=BRIEF, headers=key)
        assert response.headers["RateLimit-Policy"] == '"key.requests_per_minute";q=2;w=60'
        assert response.headers["RateLimit"].startswith(f'"key.requests_per_minute";r={left};t=')
    refused = await operator.post("/v1/content", json=BRIEF, headers=key)
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["limit"]) == (429, "rate_limited", "key.requests_per_minute")
    assert refused.headers["Retry-After"] == str(problem["retry_after"]) == "30"
    assert "RateLimit" in refused.headers
    # Asking who one is stays free.
    assert (await operator.get("/v1/me", headers=key)).status_code == 200


async def test_a_request_that_ends_gives_its_place_back(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Also one that fails: of one place at a time, three requests in a row are let in."""
    await operator.post("/admin/tenants", json=ACME)
    key = await new_key(operator, limits={"concurrent_requests": 1})
    for error, status in ((None, 200), (RuntimeError("broken"), 500), (None, 200)):
        node.content.error = error
        assert (await operator.post("/v1/content", json=BRIEF, headers=key)).status_code == status


async def test_a_key_is_shown_once(operator: httpx.AsyncClient, store: MemoryTenantStore) -> None:
    """In the answer that makes it; neither lists nor the store have more than its hash."""
    await operator.post("/admin/tenants", json=ACME)
    made = (await operator.post("/admin/tenants/acme/keys", json={"name": "Make", "scopes": ["read"]})).json()
    listed = await operator.get("/admin/tenants/acme/keys")
    assert [item["id"] for item in listed.json()["keys"]] == [made["id"]]
    assert made["key"] not in listed.text
    assert made["key"] not in str(await store.load())


async def test_a_rotation_leaves_both_keys_for_the_overlap(operator: httpx.AsyncClient) -> None:
    """With an overlap both open; with none the old one ends at once."""
    await operator.post("/admin/tenants", json=ACME)
    first = (await operator.post("/admin/tenants/acme/keys", json={"name": "x", "scopes": ["read"]})).json()
    second = (await operator.post(f"/admin/tenants/acme/keys/{first['id']}/rotate")).json()
    third = (await operator.post(f"/admin/tenants/acme/keys/{second['id']}/rotate?overlap_s=0")).json()
    opened = [
        (await operator.get("/v1/me", headers={"Authorization": f"Bearer {made['key']}"})).status_code
        for made in (first, second, third)
    ]
    assert opened == [200, 401, 200]


async def test_every_act_is_in_the_audit_log_and_nothing_else(operator: httpx.AsyncClient) -> None:
    """Who, what, and digests that chain: what one act left, the next one found. Reading and refusals are none."""
    await operator.post("/admin/tenants", json=ACME)
    await operator.get("/admin/tenants")
    await operator.patch("/admin/tenants/acme", json={"weight": 2})
    await operator.patch("/admin/tenants/acme", json={"weight": -1})
    await operator.delete("/admin/tenants/acme")
    await operator.post("/admin/policies/0/activate")
    entries = (await operator.get("/admin/audit")).json()["entries"][::-1]
    assert [(entry["action"], entry["status"], entry["actor"]) for entry in entries] == [
        ("create_tenant", 201, ADMIN_ID),
        ("change_tenant", 200, ADMIN_ID),
        ("delete_tenant", 204, ADMIN_ID),
        ("activate_policy", 200, ADMIN_ID),
    ]
    create, change, delete, activate = entries
    assert create["before"] is None
    assert create["after"] == change["before"]
    assert change["after"] == delete["before"] != change["before"]
    assert delete["after"] is None
    assert activate["path"] == "/admin/policies/0/activate"


async def test_the_audit_log_is_read_page_by_page(operator: httpx.AsyncClient) -> None:
    """The cursor of a full page leads to the older ones; the last page has none."""
    for number in range(3):
        await operator.post("/admin/tenants", json={**ACME, "id": f"t{number}"})
    first = (await operator.get("/admin/audit?limit=2")).json()
    second = (await operator.get(f"/admin/audit?limit=2&cursor={first['next_cursor']}")).json()
    assert [len(first["entries"]), len(second["entries"])] == [2, 1]
    assert second["next_cursor"] is None
    assert (await operator.get("/admin/audit?cursor=nonsense")).status_code == 422


async def test_a_store_that_fails_is_503_and_changes_nothing(
    operator: httpx.AsyncClient, store: MemoryTenantStore
) -> None:
    """Reading goes on from memory."""
    await operator.post("/admin/tenants", json=ACME)
    store.failure = StoreError("down")
    assert (await operator.patch("/admin/tenants/acme", json={"weight": 2})).status_code == 503
    assert (await operator.get("/admin/tenants/acme")).json()["settings"]["weight"] == 1.0


async def test_a_tenant_manages_its_own_keys(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """With the scope admin: make, rotate, list, revoke; the acts carry its key's id and its name."""
    await operator.post("/admin/tenants", json=ACME)
    boss = await new_key(operator, scopes=["admin", "read"])
    made = (await operator.post("/v1/keys", json={"name": "Zapier", "scopes": ["read"]}, headers=boss)).json()
    rotated = (await operator.post(f"/v1/keys/{made['id']}/rotate", headers=boss)).json()
    assert (await operator.delete(f"/v1/keys/{rotated['id']}", headers=boss)).status_code == 200
    keys = (await operator.get("/v1/keys", headers=boss)).json()["keys"]
    assert [key["name"] for key in keys] == ["test", "Zapier", "Zapier"]
    acts = [(entry.action, entry.tenant) for entry in node.audit.entries if entry.tenant is not None]
    assert acts == [("create_own_key", "acme"), ("rotate_own_key", "acme"), ("revoke_own_key", "acme")]
    assert {entry.actor for entry in node.audit.entries if entry.tenant} == {keys[0]["id"]}


async def test_a_tenants_key_passes_on_only_what_it_has(operator: httpx.AsyncClient) -> None:
    """A key without `generate` cannot make one that has it."""
    await operator.post("/admin/tenants", json=ACME)
    boss = await new_key(operator, scopes=["admin"])
    refused = await operator.post("/v1/keys", json={"name": "x", "scopes": ["generate"]}, headers=boss)
    assert (refused.status_code, refused.json()["detail"]) == (
        403,
        "a key can only pass on its own scopes, and this one lacks: generate",
    )


def test_a_rate_in_the_settings_is_a_whole_number_from_one() -> None:
    """Nobody is locked out by a limit of nothing."""
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        TenantSettings(id="a", languages={"de": LanguageSettings()}, limits=LimitSettings(tokens_per_day=0))
