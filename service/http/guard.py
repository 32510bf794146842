"""Who may call a route, checked before its body is read.

`TenantRoute` and `AdminRoute` are FastAPI route classes: a router that uses one guards every route in it. The
`HTTPBearer` objects only describe the same rule in the OpenAPI document.

    no key, unknown key → 401        the other kind of key → 403        a body that is not declared as JSON → 415
"""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from fastapi import HTTPException
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.responses import Response

from agent.errors import NotAllowed, NotAuthenticated
from service.http.state import parts_of

TENANT_KEY = HTTPBearer(scheme_name="TenantKey", description="A tenant's API key.", auto_error=False)
ADMIN_KEY = HTTPBearer(scheme_name="AdminKey", description="The node's admin key.", auto_error=False)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class _GuardedRoute(APIRoute):
    def admit(self, request: Request) -> None:
        """Let the request in, or raise NotAuthenticated or NotAllowed."""
        raise NotImplementedError

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def guarded(request: Request) -> Response:
            self.admit(request)
            if takes_body:
                _require_json(request)
            return await handle(request)

        return guarded


class TenantRoute(_GuardedRoute):
    """A route for tenants' keys; the tenant is then at `state.tenant_of(request)` and in the log's context."""

    def admit(self, request: Request) -> None:
        key = bearer_key(request)
        auth = parts_of(request).auth
        tenant = auth.tenant(key)
        if tenant is None and auth.is_admin(key):
            raise NotAllowed("this is the admin key, and /v1 routes take a tenant's key; `coloq key new` makes one")
        if tenant is None:
            raise NotAuthenticated("nobody holds this key; check that it was copied whole, or ask for a new one")
        request.state.tenant = tenant
        structlog.contextvars.bind_contextvars(tenant=tenant.id)


class AdminRoute(_GuardedRoute):
    """A route for the admin key."""

    def admit(self, request: Request) -> None:
        key = bearer_key(request)
        auth = parts_of(request).auth
        if auth.is_admin(key):
            return
        if auth.tenant(key) is not None:
            raise NotAllowed("this is a tenant's key, and /admin routes take the node's admin key")
        raise NotAuthenticated("nobody holds this key; the node printed its admin key once, at its first start")


def bearer_key(request: Request) -> str:
    """The key of `Authorization: Bearer <key>`.

    Raises:
        NotAuthenticated: no such header, several, another scheme, or no key. The message never repeats the header.
    """
    headers = request.headers.getlist("authorization")
    if not headers:
        raise NotAuthenticated("send the header 'Authorization: Bearer <key>', got no Authorization header")
    if len(headers) > 1:
        raise NotAuthenticated(f"send one Authorization header, got {len(headers)}")
    scheme, _, key = headers[0].strip().partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer":
        raise NotAuthenticated("the Authorization header must be 'Bearer <key>', got one without 'Bearer '")
    if not key or " " in key:
        raise NotAuthenticated("the Authorization header must be 'Bearer <key>' with one key, got none or several")
    return key


def _require_json(request: Request) -> None:
    declared = request.headers.get("content-type", "")
    media_type = declared.split(";", 1)[0].strip().lower()
    if media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json")):
        return
    got = repr(media_type[:80]) if media_type else "no such header"
    raise HTTPException(415, f"send JSON with the header 'Content-Type: application/json', got {got}")
