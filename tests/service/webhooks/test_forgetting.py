"""What becomes of a tenant's receivers when the tenant is gone."""

from service.webhooks.fakes import fake_webhooks
from service.webhooks.hook import Check


async def test_a_start_forgets_tenants_that_are_gone() -> None:
    """Of two tenants with endpoints and hooks one is known: it keeps them, the other has none any more."""
    webhooks = fake_webhooks()
    for tenant in ("acme", "zeta"):
        await webhooks.endpoints.create(tenant, "https://hooks.example.com/", (), "")
        await webhooks.hooks.create(tenant, "shop", {"kind": "create"}, {}, Check())
    await webhooks.forget_unknown(lambda tenant: tenant == "acme")
    assert [len(await webhooks.endpoints.list(tenant)) for tenant in ("acme", "zeta")] == [1, 0]
    assert [len(await webhooks.hooks.list(tenant)) for tenant in ("acme", "zeta")] == [1, 0]
