"""A client of the admin routes of tenants and keys, for the CLI."""

import json
from collections.abc import Mapping
from typing import Any

from service.http.client import AdminClient, segment
from service.http.tenant_schema import AuditPage, IssuedKeyView, KeyBody, KeyList, KeyView, TenantList, TenantView


class TenantClient(AdminClient):
    """Tenants, keys and the audit log of one node. Every method raises NodeRefused."""

    def tenants(self) -> TenantList:
        """Every tenant, sorted by id."""
        return self._call("GET", "/admin/tenants", TenantList)

    def tenant(self, tenant: str) -> TenantView:
        """One tenant."""
        return self._call("GET", _path(tenant), TenantView)

    def create(self, settings: Mapping[str, Any]) -> TenantView:
        """Add a tenant."""
        return self._call("POST", "/admin/tenants", TenantView, content=_json(settings))

    def replace(self, tenant: str, settings: Mapping[str, Any]) -> TenantView:
        """Give a tenant other settings."""
        return self._call("PUT", _path(tenant), TenantView, content=_json(settings))

    def delete(self, tenant: str) -> None:
        """Remove a tenant and its keys."""
        self._send("DELETE", _path(tenant))

    def keys(self, tenant: str) -> KeyList:
        """A tenant's keys."""
        return self._call("GET", f"{_path(tenant)}/keys", KeyList)

    def make_key(self, tenant: str, body: KeyBody) -> IssuedKeyView:
        """Make a key."""
        return self._call("POST", f"{_path(tenant)}/keys", IssuedKeyView, content=body.model_dump_json())

    def rotate_key(self, tenant: str, key: str, overlap_s: float) -> IssuedKeyView:
        """Replace a key; both work for ``overlap_s`` seconds."""
        path = f"{_path(tenant)}/keys/{segment(key)}/rotate?overlap_s={overlap_s:g}"
        return self._call("POST", path, IssuedKeyView)

    def revoke_key(self, tenant: str, key: str) -> KeyView:
        """End a key at once."""
        return self._call("DELETE", f"{_path(tenant)}/keys/{segment(key)}", KeyView)

    def audit(self, limit: int, cursor: str | None = None) -> AuditPage:
        """A page of the audit log, newest first."""
        page = f"&cursor={segment(cursor)}" if cursor is not None else ""
        return self._call("GET", f"/admin/audit?limit={limit}{page}", AuditPage)


def _json(settings: Mapping[str, Any]) -> str:
    """As JSON; a date, which TOML has and JSON has not, becomes a text, for the node to refuse by its rule."""
    return json.dumps(settings, default=str)


def _path(tenant: str) -> str:
    return f"/admin/tenants/{segment(tenant)}"
