"""Endpoints, as their tenant sees them."""

from datetime import timedelta

import pytest

from agent.errors import Conflict, DestinationRefused, NotFound
from service.webhooks.config import WebhooksConfig
from service.webhooks.endpoints import EndpointChange
from tests.service.webhooks.rig import Rig


async def test_a_new_endpoint_is_checked_and_gets_its_own_secret(rig: Rig) -> None:
    """The URL in one spelling, each type once, enabled."""
    first = await rig.endpoints.create("acme", "HTTPS://A.example.com", ["job.failed", "job.failed"], "errors")
    second = await rig.endpoints.create("acme", "https://a.example.com/", [], "")
    assert (first.url, first.event_types, first.enabled) == ("https://a.example.com/", ("job.failed",), True)
    assert first.secrets.current != second.secrets.current
    with pytest.raises(DestinationRefused):
        await rig.endpoints.create("acme", "https://127.0.0.1/", [], "")
    assert [item.id for item in await rig.endpoints.list("acme")] == [first.id, second.id]


async def test_a_tenant_may_have_so_many() -> None:
    """Two here; deleting one makes room."""
    rig = Rig(WebhooksConfig(max_endpoints=2))
    first = await rig.add_endpoint()
    await rig.add_endpoint()
    with pytest.raises(Conflict, match="may have 2 endpoints"):
        await rig.add_endpoint()
    await rig.endpoints.delete("acme", first)
    await rig.add_endpoint()


async def test_a_change_leaves_what_it_does_not_name(rig: Rig) -> None:
    """A new URL is checked as the first one was."""
    endpoint = await rig.add_endpoint("a", "job.failed")
    changed = await rig.endpoints.update("acme", endpoint, EndpointChange(url="https://b.example.com"))
    assert (changed.url, changed.event_types) == ("https://b.example.com/", ("job.failed",))
    changed = await rig.endpoints.update("acme", endpoint, EndpointChange(event_types=(), description="x"))
    assert (changed.url, changed.event_types, changed.description) == ("https://b.example.com/", (), "x")
    with pytest.raises(DestinationRefused):
        await rig.endpoints.update("acme", endpoint, EndpointChange(url="https://10.0.0.1/"))


async def test_another_tenants_endpoint_is_not_there(rig: Rig) -> None:
    """Not to be seen, changed, rotated or deleted."""
    endpoint = await rig.add_endpoint(tenant="globex")
    for call in (
        rig.endpoints.get("acme", endpoint),
        rig.endpoints.update("acme", endpoint, EndpointChange(enabled=False)),
        rig.endpoints.rotate("acme", endpoint),
        rig.endpoints.delete("acme", endpoint),
        rig.deliveries.test("acme", endpoint),
    ):
        with pytest.raises(NotFound):
            await call


async def test_a_rotation_keeps_the_old_secret_for_the_overlap(rig: Rig) -> None:
    """A day by default."""
    endpoint = await rig.add_endpoint()
    old = (await rig.endpoints.get("acme", endpoint)).secrets.current
    new = (await rig.endpoints.rotate("acme", endpoint)).secrets
    assert new.valid(rig.clock.now) == (new.current, old)
    assert new.valid(rig.clock.now + timedelta(days=1)) == (new.current,)


async def test_the_callback_secret_is_rotated_like_an_endpoints(rig: Rig) -> None:
    """The first rotation shows a secret that nobody knew before; the second keeps it for the overlap."""
    first = await rig.endpoints.rotate_callback_secret("acme")
    second = await rig.endpoints.rotate_callback_secret("acme")
    assert second.valid(rig.clock.now) == (second.current, first.current)
