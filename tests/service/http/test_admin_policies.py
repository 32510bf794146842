"""The operator's routes that decide who gets which policy."""

import httpx
import pytest
from fastapi import FastAPI

from service.config import NodeConfig
from service.http.fake_tuning import EPOCH
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode, registry_of
from tests.service.http.conftest import ACME, BuildApp
from trainer.records import PolicyRecord

ZETA = ACME.model_copy(update={"id": "zeta"})


def policy(version: int, tenant: str | None = None) -> PolicyRecord:
    return PolicyRecord(version, "adapter", 0, "run_1", EPOCH, None, None, None, tenant)


@pytest.fixture
def node() -> FakeNode:
    made = FakeNode(tenancy=registry_of([ACME, ZETA]))
    made.policies.records.update({version: policy(version) for version in (1, 2, 3)} | {9: policy(9, "zeta")})
    return made


@pytest.fixture
def app(build_app: BuildApp, node: FakeNode) -> FastAPI:
    keys = {"tenant-key": ACME, "zeta-key": ZETA}
    return build_app(node, FakeAuthenticator(keys), NodeConfig(), FakeMetrics())


@pytest.fixture
def operator(client: httpx.AsyncClient, admin_key: dict[str, str]) -> httpx.AsyncClient:
    client.headers.update(admin_key)
    return client


async def test_a_canary_from_start_to_stop(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Started with what was chosen, shown while it runs, kept once it ended; each act is in the audit log."""
    started = await operator.post("/admin/policies/2/canary", json={"share": 0.25, "languages": ["de"]})
    assert started.status_code == 201
    body = started.json()
    assert (body["candidate"], body["stable"], body["share"], body["languages"]) == (2, 0, 0.25, ["de"])
    assert (await operator.get("/admin/canary")).json()["running"] == body
    stopped = (await operator.delete("/admin/canary")).json()
    assert (stopped["id"], stopped["outcome"]) == (body["id"], "stopped")
    after = (await operator.get("/admin/canary")).json()
    assert (after["running"], after["ended"]) == (None, [stopped])
    assert [entry.action for entry in node.audit.entries] == ["start_canary", "stop_canary"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/admin/policies/7/canary", {}, 404, "not_found"),
        ("POST", "/admin/policies/7/promote", {}, 404, "not_found"),
        ("POST", "/admin/policies/7/rollback", {}, 404, "not_found"),
        ("POST", "/admin/policies/0/canary", {}, 409, "conflict"),
        ("POST", "/admin/policies/2/rollback", {}, 409, "conflict"),
        ("DELETE", "/admin/canary", None, 409, "conflict"),
        ("POST", "/admin/policies/9/promote", {}, 409, "conflict"),
        ("POST", "/admin/policies/9/promote", {"tenant": "acme"}, 409, "conflict"),
        ("POST", "/admin/policies/2/promote", {"tenant": "nobody"}, 404, "not_found"),
        ("POST", "/admin/policies/2/canary", {"share": 0.9}, 422, "invalid_request"),
        ("POST", "/admin/policies/2/canary", {"languages": ["xx"]}, 422, "invalid_request"),
        ("POST", "/admin/policies/7/pin", {"tenant": "acme"}, 422, "invalid_request"),
        ("POST", "/admin/policies/9/pin", {"tenant": "acme"}, 422, "invalid_request"),
        ("POST", "/admin/policies/2/pin", {"tenant": "acme", "language": "fr"}, 422, "invalid_request"),
        ("POST", "/admin/policies/2/pin", {"tenant": "nobody"}, 404, "not_found"),
    ],
)
async def test_what_cannot_be_is_refused(
    operator: httpx.AsyncClient, method: str, path: str, body: dict[str, object] | None, status: int, code: str
) -> None:
    """With the status and code of what stands in the way."""
    response = await operator.request(method, path, json=body)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text


async def test_a_second_canary_is_refused_with_the_first_ones_id(operator: httpx.AsyncClient) -> None:
    """And so is the promotion of another version meanwhile."""
    running = (await operator.post("/admin/policies/2/canary", json={})).json()["id"]
    for path in ("/admin/policies/3/canary", "/admin/policies/3/promote"):
        refused = (await operator.post(path, json={})).json()
        assert (refused["status"], refused["code"], refused["running_id"]) == (409, "canary_running", running)


async def test_method_full_is_refused_with_the_reason(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """A canary and a tenant's policy need a second copy of the weights; a pin is a setting, so its field is named."""
    node.policies.method = "full"
    for path, body in (("canary", {}), ("promote", {"tenant": "acme"})):
        refused = (await operator.post(f"/admin/policies/2/{path}", json=body)).json()
        assert refused["code"] == "needs_adapters"
        assert "one copy of the weights" in refused["detail"]
    refused = (await operator.post("/admin/policies/2/pin", json={"tenant": "acme"})).json()
    assert refused["errors"][0]["field"] == "policy"


async def test_promoted_and_rolled_back(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Back to the one before, twice, or to a given one."""
    for version in (1, 2):
        promoted = (await operator.post(f"/admin/policies/{version}/promote", json={})).json()
        assert (promoted["version"], promoted["active"]) == (version, True)
    assert (await operator.post("/admin/policies/2/rollback", json={})).json()["version"] == 1
    assert (await operator.post("/admin/policies/1/rollback", json={"to": 3})).json()["version"] == 3
    assert node.policies.active_version == 3
    first = node.audit.entries[0]
    assert (first.action, first.before != first.after) == ("promote_policy", True)


async def test_a_tenants_own_policy(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Given to one tenant alone, shown, and taken back to the common one."""
    given = await operator.post("/admin/policies/9/promote", json={"tenant": "zeta"})
    assert (given.status_code, given.json()["tenant"], given.json()["active"]) == (200, "zeta", False)
    assert (await operator.get("/admin/canary")).json()["tenant_policies"] == {"zeta": 9}
    wrong = await operator.post("/admin/policies/2/rollback", json={"tenant": "zeta"})
    assert wrong.json()["detail"] == "policy 2 is not that of tenant zeta, which has policy 9"
    back = await operator.post("/admin/policies/9/rollback", json={"tenant": "zeta"})
    assert back.json()["version"] == 0
    assert node.tenant_policies.versions == {}


async def test_a_tenants_own_policy_is_nobody_elses_model(client: httpx.AsyncClient, node: FakeNode) -> None:
    """Listed for its tenant, and not even known to another one."""
    answers = {}
    for key in ("tenant-key", "zeta-key"):
        headers = {"Authorization": f"Bearer {key}"}
        listed = [model["id"] for model in (await client.get("/v1/models", headers=headers)).json()["data"]]
        single = (await client.get("/v1/models/coloq@v9", headers=headers)).status_code
        answers[key] = ("coloq@v9" in listed, single)
    assert answers == {"tenant-key": (False, 404), "zeta-key": (True, 200)}


async def test_a_pin_is_a_setting_of_the_tenant(operator: httpx.AsyncClient) -> None:
    """Set and taken away by its own route, or by the tenant's; unpinning another version changes nothing."""
    await operator.post("/admin/policies/2/pin", json={"tenant": "acme"})
    pinned = (await operator.post("/admin/policies/1/pin", json={"tenant": "acme", "language": "de"})).json()
    assert pinned["settings"]["policy"] == 2
    assert pinned["settings"]["languages"]["de"]["policy"] == 1
    same = (await operator.delete("/admin/policies/3/pin", params={"tenant": "acme"})).json()
    assert same["settings"]["policy"] == 2
    freed = (await operator.delete("/admin/policies/1/pin", params={"tenant": "acme", "language": "de"})).json()
    assert (freed["settings"]["policy"], freed["settings"]["languages"]["de"]["policy"]) == (2, None)
    refused = await operator.patch("/admin/tenants/acme", json={"languages": {"en": {"policy": 8}}})
    assert refused.status_code == 422
    assert refused.json()["errors"] == [
        {
            "field": "languages.en.policy",
            "message": "languages.en.policy must be a published policy that the tenant may have, got 8",
        }
    ]


async def test_pins_have_no_more_slots_than_there_are(operator: httpx.AsyncClient, node: FakeNode) -> None:
    """Three versions beside the active one: the fourth is refused with the field and the figure."""
    node.policies.records[4] = policy(4)
    assert (await operator.patch("/admin/tenants/zeta", json={"policy": 1})).status_code == 200
    body = {"policy": 4, "languages": {"de": {"policy": 2}, "en": {"policy": 3}}}  # no language is left for 4
    assert (await operator.patch("/admin/tenants/acme", json=body)).status_code == 200
    node.pins.routes.use_pins([record.settings for record in node.tenancy.list()])
    refused = await operator.patch("/admin/tenants/zeta", json={"languages": {"de": {"policy": 4}}})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "policy"  # the first of the tenant's pins
    assert "may have 3 versions together" in refused.json()["detail"]
    full = await operator.post("/admin/policies/4/canary", json={})
    assert (full.status_code, full.json()["code"]) == (409, "no_adapter_slot")
