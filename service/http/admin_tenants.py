"""The operator's routes of tenants, their keys, and the audit log."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, Security
from fastapi.exceptions import RequestValidationError
from pydantic import JsonValue, ValidationError
from starlette.requests import Request

from agent.config import TenantSettings
from agent.errors import InvalidInput
from service.http.guard import ADMIN_KEY, AdminRoute, changed
from service.http.openapi import problems
from service.http.state import AppParts, Parts
from service.http.tenant_schema import (
    AuditPage,
    AuditQuery,
    AuditView,
    IssuedKeyView,
    KeyBody,
    KeyList,
    KeyView,
    Overlap,
    TenantList,
    TenantView,
)
from service.stored_record import RecordCodec
from service.tenancy.audit import digest
from service.tenancy.record import KeyRecord, TenantRecord

DEFAULT_OVERLAP_S = 86_400.0

router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    route_class=AdminRoute,
    dependencies=[Security(ADMIN_KEY)],
    responses=problems(401, 403, 503),
)

TenantId = Annotated[str, Path(min_length=1, max_length=63, description="A tenant's id.")]
KeyId = Annotated[str, Path(min_length=1, max_length=64, description="A key's id.")]
OverlapQuery = Annotated[
    Overlap, Query(description="Seconds for which the old key works beside the new one; at most 30 days.")
]
LOCATION = {"Location": {"description": "Where the new thing is.", "schema": {"type": "string"}}}
_WRITES = problems(400, 413, 415, 422)


@router.get("/tenants", summary="List tenants, sorted by id")
async def list_tenants(parts: Parts) -> TenantList:
    """Settings, and what each one used today."""
    return TenantList(tenants=[_view(parts, record) for record in parts.node.tenancy.list()])


@router.post(
    "/tenants",
    status_code=201,
    summary="Add a tenant",
    responses={201: {"headers": LOCATION}, **problems(409), **_WRITES},
)
async def create_tenant(body: TenantSettings, request: Request, response: Response, parts: Parts) -> TenantView:
    """In force when the answer comes. It has no key yet: make one at `/admin/tenants/{tenant}/keys`."""
    record = await parts.node.tenancy.create(body)
    changed(request, before=None, after=_digest(record))
    response.headers["Location"] = f"/admin/tenants/{record.id}"
    return _view(parts, record)


@router.get("/tenants/{tenant}", summary="One tenant", responses=problems(404, 422))
async def get_tenant(tenant: TenantId, parts: Parts) -> TenantView:
    """Its settings as they are in force."""
    return _view(parts, parts.node.tenancy.get(tenant))


@router.put("/tenants/{tenant}", summary="Replace a tenant's settings", responses={**problems(404, 409), **_WRITES})
async def replace_tenant(tenant: TenantId, body: TenantSettings, request: Request, parts: Parts) -> TenantView:
    """All settings at once; keys stay. From now on the tenant no longer follows the configuration file."""
    return await _replace(tenant, body, request, parts)


@router.patch(
    "/tenants/{tenant}", summary="Change some of a tenant's settings", responses={**problems(404, 409), **_WRITES}
)
async def change_tenant(tenant: TenantId, body: dict[str, JsonValue], request: Request, parts: Parts) -> TenantView:
    """A JSON merge patch (RFC 7396) of the settings: what is null goes back to its default."""
    current = parts.node.tenancy.get(tenant).settings.model_dump(mode="json", exclude_none=True)
    return await _replace(tenant, _settings(_merged(current, body)), request, parts)


@router.delete(
    "/tenants/{tenant}", status_code=204, summary="Delete a tenant and its keys", responses=problems(404, 409, 422)
)
async def delete_tenant(tenant: TenantId, request: Request, parts: Parts) -> None:
    """Its keys open nothing from now on; its endpoints and hooks go with it. What it had written stays in the journal,
    where tuning draws from it no more."""
    before = _digest(parts.node.tenancy.get(tenant))
    # First, so that the act can be sent again when the store fails halfway.
    await parts.node.webhooks.forget(tenant)
    await parts.node.tenancy.delete(tenant)
    changed(request, before=before, after=None)


@router.get("/tenants/{tenant}/keys", summary="List a tenant's keys", responses=problems(404, 422))
async def list_keys(tenant: TenantId, parts: Parts) -> KeyList:
    """Oldest first, those that ended included; never the keys themselves."""
    return await keys_of(parts, tenant)


@router.post(
    "/tenants/{tenant}/keys", status_code=201, summary="Make a key", responses={**problems(404, 409), **_WRITES}
)
async def create_key(tenant: TenantId, body: KeyBody, request: Request, parts: Parts) -> IssuedKeyView:
    """The key is in this answer and nowhere else."""
    return await make_key(parts, tenant, body, request)


@router.post(
    "/tenants/{tenant}/keys/{key}/rotate", status_code=201, summary="Replace a key", responses=problems(404, 409, 422)
)
async def rotate_key(
    tenant: TenantId, key: KeyId, request: Request, parts: Parts, overlap_s: OverlapQuery = DEFAULT_OVERLAP_S
) -> IssuedKeyView:
    """A new key of the same name, scopes and limits; both work during the overlap, a day unless it is said."""
    return await replace_key(parts, tenant, key, overlap_s, request)


@router.delete("/tenants/{tenant}/keys/{key}", summary="Revoke a key", responses=problems(404, 409, 422))
async def revoke_key(tenant: TenantId, key: KeyId, request: Request, parts: Parts) -> KeyView:
    """It opens nothing from now on; revoking it again changes nothing."""
    return await end_key(parts, tenant, key, request)


@router.get("/audit", summary="The audit log, newest first", responses=problems(422))
async def list_audit(
    parts: Parts,
    page: Annotated[AuditQuery, Query()],
) -> AuditPage:
    """Every act that changed something: who, what, when, and digests of before and after."""
    entries = await parts.node.audit.newest(page.limit, before=page.cursor)
    last = entries[-1].id if len(entries) == page.limit else None
    return AuditPage(entries=[AuditView.of(entry) for entry in entries], next_cursor=last)


async def keys_of(parts: AppParts, tenant: str) -> KeyList:
    """A tenant's keys with their last uses."""
    record = parts.node.tenancy.get(tenant)
    used_at = await parts.node.tenancy.last_used(tenant)
    return KeyList(keys=[KeyView.of(key, used_at.get(key.id)) for key in record.keys])


async def make_key(parts: AppParts, tenant: str, body: KeyBody, request: Request) -> IssuedKeyView:
    """A new key, noted for the audit log."""
    issued = await parts.node.tenancy.add_key(tenant, body.order())
    changed(request, before=None, after=_key_digest(issued.record))
    return IssuedKeyView(**KeyView.of(issued.record).model_dump(), key=issued.plain)


async def replace_key(parts: AppParts, tenant: str, key: str, overlap_s: float, request: Request) -> IssuedKeyView:
    """A key in place of another, noted for the audit log."""
    old = parts.node.tenancy.get(tenant).key(key)
    issued = await parts.node.tenancy.rotate_key(tenant, key, overlap_s)
    changed(request, before=_key_digest(old) if old is not None else None, after=_key_digest(issued.record))
    return IssuedKeyView(**KeyView.of(issued.record).model_dump(), key=issued.plain)


async def end_key(parts: AppParts, tenant: str, key: str, request: Request) -> KeyView:
    """A key revoked, noted for the audit log."""
    old = parts.node.tenancy.get(tenant).key(key)
    ended = await parts.node.tenancy.revoke_key(tenant, key)
    changed(request, before=_key_digest(old) if old is not None else None, after=_key_digest(ended))
    return KeyView.of(ended)


async def _replace(tenant: str, settings: TenantSettings, request: Request, parts: AppParts) -> TenantView:
    if settings.id != tenant:
        raise InvalidInput("id", f"must be that of the path, {tenant}, got {settings.id}")
    before = parts.node.tenancy.get(tenant)
    record = await parts.node.tenancy.replace(settings)
    changed(request, before=_digest(before), after=_digest(record))
    return _view(parts, record)


def _settings(merged: JsonValue) -> TenantSettings:
    try:
        return TenantSettings.model_validate(merged)
    except ValidationError as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from error


def _merged(target: JsonValue, patch: JsonValue) -> JsonValue:
    """RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _view(parts: AppParts, record: TenantRecord) -> TenantView:
    warnings = parts.node.tenancy.warnings(record.settings)
    return TenantView.of(record, parts.node.limits.used_today(record.id), warnings)


def _digest(record: TenantRecord) -> str:
    return digest(record.settings.model_dump_json())


def _key_digest(key: KeyRecord) -> str:
    return digest(RecordCodec(KeyRecord).encode(key))
