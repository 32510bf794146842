"""Who may call a route, for what and how often, checked before its body is read.

`TenantRoute` and `AdminRoute` are FastAPI route classes: a router that uses one guards every route in it. The
`HTTPBearer` objects only describe the same rule in the OpenAPI document.

    no key, unknown key → 401        the other kind of key, or one without the scope → 403        a limit → 429
    a body that is not declared as JSON → 415

A `HookRoute` takes no key: its handler finds out for whom it acts, and says so with `act_for_hook`.

A tenants' route needs the scope `read` for GET and `generate` for the rest, unless it says otherwise with
`openapi_extra=ADMIN_ONLY`. What an operator's or a tenant's admin key changed goes to the audit log.
"""

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any

import structlog
from fastapi import APIRouter, HTTPException, Security
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Send
from starlette.types import Scope as Connection

from agent.config import TenantSettings
from agent.errors import NotAllowed, NotAuthenticated, StoreError
from service.http.depth import require_shallow
from service.http.openapi import problems
from service.http.state import parts_of, request_id_of
from service.secrets import hash_key
from service.tenancy.audit import AuditEntry
from service.tenancy.caller import CALLER, Caller
from service.tenancy.record import Scope

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

TENANT_KEY = HTTPBearer(scheme_name="TenantKey", description="A tenant's API key.", auto_error=False)
ADMIN_KEY = HTTPBearer(scheme_name="AdminKey", description="The node's admin key.", auto_error=False)
SCOPE_EXTENSION = "x-coloq-scope"
"""Where the OpenAPI document names the scope that a route needs, or `any`."""
_ANY = "any"
READING_METHODS = frozenset({"GET", "HEAD"})

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def needs(scope: Scope | None) -> dict[str, Any]:
    """`openapi_extra` of a tenants' route that needs this scope; None for one that takes any key and is not counted."""
    return {SCOPE_EXTENSION: scope.value if scope is not None else _ANY}


ADMIN_ONLY = needs(Scope.ADMIN)
"""`openapi_extra` of a tenants' route for keys that manage the tenant."""


class _GuardedRoute(APIRoute):
    def admit(self, request: Request) -> None:
        """Let the request in, or raise NotAuthenticated, NotAllowed or LimitReached."""
        raise NotImplementedError

    @property
    def is_audited(self) -> bool:
        """Whether what it does is an act for the audit log."""
        raise NotImplementedError

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        takes_body = self.body_field is not None
        is_audited = self.is_audited

        async def guarded(request: Request) -> Response:
            self.admit(request)
            if takes_body:
                _require_json(request)
                await require_shallow(request)
            response = await handle(request)
            if is_audited and response.status_code < 400:
                await _audit(request, response, self.name)
            return response

        return guarded


class _LimitedRoute(_GuardedRoute):
    """A route that acts for a tenant, within its limits."""

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer with the state of the limits in the head; the request counts as running until all of it is sent."""
        state: dict[str, Any] = scope.setdefault("state", {})

        async def send_with_limits(message: Message) -> None:
            if message["type"] == "http.response.start" and "caller" in state:
                fields = parts_of(Request(scope)).node.limits.headers(state["caller"])
                message["headers"] = [*message.get("headers", ()), *fields]
            await send(message)

        try:
            await super().handle(scope, receive, send_with_limits)
        finally:
            CALLER.set(None)
            if "passage" in state:
                state["passage"].leave()


class TenantRoute(_LimitedRoute):
    """A route for tenants' keys; who calls is then at `state.caller_of(request)` and in the log's context."""

    @property
    def scope(self) -> Scope | None:
        """The scope that a key needs; None when any key will do."""
        extra = self.openapi_extra or {}
        if SCOPE_EXTENSION in extra:
            named = extra[SCOPE_EXTENSION]
            return Scope(named) if named != _ANY else None
        return Scope.READ if self.methods <= READING_METHODS else Scope.GENERATE

    @property
    def generates(self) -> bool:
        """Whether its requests are held to the limits of requests that generate."""
        return self.scope is Scope.GENERATE

    @property
    def is_audited(self) -> bool:
        return self.scope is Scope.ADMIN and not self.methods <= READING_METHODS

    def get_route_handler(self) -> Handler:
        self.openapi_extra = {**(self.openapi_extra or {}), **needs(self.scope)}
        return super().get_route_handler()

    def admit(self, request: Request) -> None:
        caller = self._authenticated(request)
        _act_for(request, caller)
        scope = self.scope
        if scope is None:
            return
        if scope not in caller.scopes:
            held = ", ".join(item.value for item in Scope if item in caller.scopes) or "none"
            raise NotAllowed(f"this route needs a key with the scope '{scope.value}', got one with: {held}")
        _enter(request, caller, generates=self.generates)

    def _authenticated(self, request: Request) -> Caller:
        key = bearer_key(request)
        auth = parts_of(request).auth
        caller = auth.caller(key)
        if caller is not None:
            return caller
        if auth.is_admin(key):
            raise NotAllowed("this is the admin key, and /v1 routes take a tenant's key; `coloq key new` makes one")
        raise NotAuthenticated("nobody holds this key; check that it was copied whole, or ask for a new one")


def tenant_router(prefix: str, tag: str) -> APIRouter:
    """A router of routes for tenants' keys that answer from the store."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=TenantRoute,
        dependencies=[Security(TENANT_KEY)],
        responses=problems(401, 403, 503),
    )


class HookRoute(_LimitedRoute):
    """A route that takes no key; its handler calls `act_for_hook` once it knows the hook."""

    @property
    def is_audited(self) -> bool:
        return False

    def admit(self, request: Request) -> None:
        """Whoever knows a hook's id may call it."""


def act_for_hook(request: Request, tenant: TenantSettings, hook_id: str) -> None:
    """Let a call of an inbound hook in, as a request that generates for the hook's tenant.

    The hook counts as one of the tenant's keys. Its id opens it, so logs and counts know it by a digest.

    Raises:
        RateLimited, ConcurrencyLimited, QuotaExhausted: a limit of the tenant is reached.
    """
    caller = Caller(tenant, f"hook_{_short_digest(hook_id)}", frozenset({Scope.GENERATE}))
    _act_for(request, caller)
    _enter(request, caller, generates=True)


def _act_for(request: Request, caller: Caller) -> None:
    request.state.caller = caller
    CALLER.set(caller)
    structlog.contextvars.bind_contextvars(tenant=caller.tenant.id, key=caller.key_id)


def _enter(request: Request, caller: Caller, *, generates: bool) -> None:
    request.state.passage = parts_of(request).node.limits.enter(caller, generates=generates)


class AdminRoute(_GuardedRoute):
    """A route for the admin key."""

    @property
    def is_audited(self) -> bool:
        return not self.methods <= READING_METHODS

    def admit(self, request: Request) -> None:
        key = bearer_key(request)
        auth = parts_of(request).auth
        if auth.is_admin(key):
            request.state.actor = admin_key_id(key)
            return
        if auth.caller(key) is not None:
            raise NotAllowed("this is a tenant's key, and /admin routes take the node's admin key")
        raise NotAuthenticated("nobody holds this key; the node printed its admin key once, at its first start")


def admin_key_id(key: str) -> str:
    """`admin_` and the first 8 digits of the key's hash: tells admin keys apart in the audit log."""
    return f"admin_{_short_digest(key)}"


def _short_digest(credential: str) -> str:
    return hash_key(credential).removeprefix("sha256:")[:8]


def changed(request: Request, *, before: str | None, after: str | None) -> None:
    """Note the digests of what the request changed, for the audit log."""
    request.state.change = (before, after)


async def _audit(request: Request, response: Response, action: str) -> None:
    """Keep an act. It is done by now, so a store that fails is logged with the whole entry, and the answer stands."""
    caller = getattr(request.state, "caller", None)
    before, after = getattr(request.state, "change", (None, None))
    entry = AuditEntry(
        at=datetime.now(UTC),
        actor=caller.key_id if caller is not None else request.state.actor,
        tenant=caller.tenant.id if caller is not None else None,
        action=action,
        path=request.scope["path"],
        status=response.status_code,
        request_id=request_id_of(request),
        before=before,
        after=after,
    )
    try:
        await parts_of(request).node.audit.append(entry)
    except StoreError as error:
        log.error(
            "audit_entry_not_stored",
            reason=str(error),
            actor=entry.actor,
            action=entry.action,
            path=entry.path,
            before=entry.before,
            after=entry.after,
        )


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
