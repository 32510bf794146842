"""`/v1/webhooks`: endpoints and the log of deliveries."""

from typing import Any

import httpx
import pytest

from service.http.fakes import FakeNode

URL = "https://hooks.example.com/coloq"
ENDPOINTS = "/v1/webhooks/endpoints"


@pytest.fixture
def tenant(client: httpx.AsyncClient, tenant_key: dict[str, str]) -> httpx.AsyncClient:
    client.headers.update(tenant_key)
    return client


async def create(tenant: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    response = await tenant.post(ENDPOINTS, json={"url": URL, **fields})
    assert response.status_code == 201, response.text
    body: dict[str, Any] = response.json()
    return body


async def test_the_secret_is_shown_once(tenant: httpx.AsyncClient) -> None:
    """In the answer that makes the endpoint, and in none that shows it."""
    endpoint = await create(tenant, event_types=["job.completed"], description="n8n")
    secret = endpoint.pop("secret")
    assert secret.startswith("whsec_")
    assert (await tenant.get(f"{ENDPOINTS}/{endpoint['id']}")).json() == endpoint
    listed = await tenant.get(ENDPOINTS)
    assert listed.json() == {"endpoints": [endpoint]}
    changed = await tenant.patch(f"{ENDPOINTS}/{endpoint['id']}", json={"enabled": False})
    assert changed.json() == {**endpoint, "enabled": False}
    assert secret not in listed.text + changed.text


async def test_null_counts_as_not_given(tenant: httpx.AsyncClient) -> None:
    """The endpoint then gets every type."""
    endpoint = await create(tenant, event_types=None, description=None)
    assert (endpoint["event_types"], endpoint["description"]) == ([], "")


async def test_a_rotation_shows_the_new_secret_and_the_end_of_the_old(tenant: httpx.AsyncClient) -> None:
    """The endpoint's view then tells the same time."""
    endpoint = await create(tenant)
    rotated = (await tenant.post(f"{ENDPOINTS}/{endpoint['id']}/rotate")).json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != endpoint["secret"]
    view = (await tenant.get(f"{ENDPOINTS}/{endpoint['id']}")).json()
    assert view["previous_secret_until"] == rotated["previous_secret_until"] is not None


async def test_the_secret_of_callbacks_is_made_by_its_route(tenant: httpx.AsyncClient) -> None:
    """Each call makes another."""
    first, second = [(await tenant.post("/v1/webhooks/callback-secret")).json()["secret"] for _ in range(2)]
    assert first.startswith("whsec_")
    assert first != second


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"url": "http://hooks.example.com/"}, "destination_refused", "url"),
        ({"url": "https://127.0.0.1/"}, "destination_refused", "url"),
        ({"url": "https://unknown.example.com/"}, "destination_refused", "url"),
        ({"url": URL, "event_types": ["job.exploded"]}, "invalid_request", "event_types.0"),
        ({}, "invalid_request", "url"),
        ({"url": URL, "secret": "mine"}, "invalid_request", "secret"),
    ],
)
async def test_what_cannot_be_an_endpoint_is_422_naming_the_field(
    tenant: httpx.AsyncClient, body: dict[str, object], code: str, field: str
) -> None:
    """With the code that says whether the URL or the body is at fault."""
    response = await tenant.post(ENDPOINTS, json=body)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert response.json()["errors"][0]["field"] == field


async def test_a_test_event_can_be_followed_and_replayed(tenant: httpx.AsyncClient) -> None:
    """202 with a place to look at; a delivery that is still tried is not replayed (409)."""
    endpoint = await create(tenant)
    response = await tenant.post(f"{ENDPOINTS}/{endpoint['id']}/test")
    assert response.status_code == 202
    delivery = (await tenant.get(response.headers["Location"])).json()
    assert delivery == response.json()
    assert (delivery["event_type"], delivery["state"], delivery["attempts"]) == ("webhook.test", "pending", [])
    again = await tenant.post(f"/v1/webhooks/deliveries/{delivery['id']}/replay")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_samples_are_a_list_of_objects_with_ids(tenant: httpx.AsyncClient) -> None:
    """One for each type that the endpoint gets; Zapier asks for them while a Zap is set up."""
    some = await create(tenant, event_types=["job.completed", "job.failed"])
    samples = (await tenant.get(f"{ENDPOINTS}/{some['id']}/sample")).json()
    assert [item["type"] for item in samples] == ["job.completed", "job.failed"]
    every = await create(tenant)
    samples = (await tenant.get(f"{ENDPOINTS}/{every['id']}/sample")).json()
    assert len({item["id"] for item in samples}) == len(samples) == 9


async def test_deliveries_are_listed_newest_first_by_cursor(tenant: httpx.AsyncClient, node: FakeNode) -> None:
    """Three in pages of two, the first by no cursor or an empty one. A limit out of bounds is refused, as is a cursor
    that is none: an empty page would say that there are no deliveries."""
    await create(tenant)
    ids = [(await node.webhooks.deliveries.enqueue("acme", "job.completed", {"id": str(n)}))[0] for n in range(3)]
    first = (await tenant.get("/v1/webhooks/deliveries?limit=2")).json()
    assert [item["id"] for item in first["deliveries"]] == [ids[2], ids[1]]
    assert (await tenant.get("/v1/webhooks/deliveries?limit=2&cursor=")).json() == first
    second = (await tenant.get(f"/v1/webhooks/deliveries?limit=2&cursor={first['next_cursor']}")).json()
    assert [item["id"] for item in second["deliveries"]] == [ids[0]]
    assert second["next_cursor"] is None
    assert (await tenant.get("/v1/webhooks/deliveries?state=failed")).json()["deliveries"] == []
    assert len((await tenant.get("/v1/webhooks/deliveries?state=pending")).json()["deliveries"]) == 3
    for query in ("limit=0", "state=lost", "cursor=next"):
        assert (await tenant.get(f"/v1/webhooks/deliveries?{query}")).status_code == 422


async def test_the_data_of_a_truncated_event_is_behind_its_link(tenant: httpx.AsyncClient, node: FakeNode) -> None:
    """As JSON; an event that was sent whole has none."""
    await create(tenant)
    data = {"id": "job_1", "result": {"text": "x" * 30_000}}
    large, small = [
        (await node.webhooks.deliveries.enqueue("acme", "job.completed", item))[0] for item in (data, {"id": "job_2"})
    ]
    response = await tenant.get(f"/v1/webhooks/deliveries/{large}/data")
    assert (response.status_code, response.json()) == (200, data)
    assert response.headers["Content-Type"] == "application/json"
    assert (await tenant.get(f"/v1/webhooks/deliveries/{small}/data")).status_code == 404


async def test_a_deleted_endpoint_is_gone(tenant: httpx.AsyncClient) -> None:
    """204 once, 404 from then on."""
    endpoint = await create(tenant)
    assert (await tenant.delete(f"{ENDPOINTS}/{endpoint['id']}")).status_code == 204
    for method, path in (("DELETE", ""), ("GET", ""), ("POST", "/rotate"), ("POST", "/test"), ("GET", "/sample")):
        response = await tenant.request(method, f"{ENDPOINTS}/{endpoint['id']}{path}")
        assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_another_tenants_endpoints_and_deliveries_are_not_there(
    tenant: httpx.AsyncClient, node: FakeNode
) -> None:
    """404, and not in any list."""
    foreign = await node.webhooks.endpoints.create("globex", URL, [], "")
    (delivery,) = await node.webhooks.deliveries.enqueue("globex", "job.completed", {"id": "job_1"})
    assert (await tenant.get(f"{ENDPOINTS}/{foreign.id}")).status_code == 404
    assert (await tenant.get(f"/v1/webhooks/deliveries/{delivery}")).status_code == 404
    assert (await tenant.post(f"/v1/webhooks/deliveries/{delivery}/replay")).status_code == 404
    assert (await tenant.get(ENDPOINTS)).json() == {"endpoints": []}
    assert (await tenant.get("/v1/webhooks/deliveries")).json()["deliveries"] == []
