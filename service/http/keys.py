"""The node's keys as the HTTP layer's `Authenticator`."""

from agent.config import TenantSettings
from service.secrets import AdminKey
from service.tenancy.caller import Caller
from service.tenants import Tenants


class NodeKeys:
    """Tenants' keys and the admin key."""

    def __init__(self, tenants: Tenants, admin: AdminKey) -> None:
        self._tenants = tenants
        self._admin = admin

    def caller(self, key: str) -> Caller | None:
        """Who holds `key`, or None."""
        return self._tenants.authenticate(key)

    def is_admin(self, key: str) -> bool:
        """True when `key` is the node's admin key."""
        return self._admin.matches(key)

    def tenant_of_id(self, tenant: str) -> TenantSettings | None:
        """The tenant of that id, or None."""
        return self._tenants.get(tenant)
