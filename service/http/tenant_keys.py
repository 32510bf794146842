"""A tenant's own keys: the same acts as the operator's, for keys with the scope `admin`."""

from starlette.requests import Request

from agent.errors import NotAllowed
from service.http.admin_tenants import DEFAULT_OVERLAP_S, KeyId, OverlapQuery, end_key, keys_of, make_key, replace_key
from service.http.guard import ADMIN_ONLY, tenant_router
from service.http.openapi import problems
from service.http.state import Holder, Parts
from service.http.tenant_schema import IssuedKeyView, KeyBody, KeyList, KeyView

router = tenant_router("/v1/keys", "keys")


@router.get("", summary="List your keys", openapi_extra=ADMIN_ONLY)
async def list_own_keys(caller: Holder, parts: Parts) -> KeyList:
    """Oldest first, those that ended included; never the keys themselves."""
    return await keys_of(parts, caller.tenant.id)


@router.post(
    "", status_code=201, summary="Make a key", openapi_extra=ADMIN_ONLY, responses=problems(400, 409, 413, 415, 422)
)
async def create_own_key(body: KeyBody, caller: Holder, request: Request, parts: Parts) -> IssuedKeyView:
    """With scopes that your own key has. The new key is in this answer and nowhere else."""
    beyond = [scope.value for scope in body.scopes if scope not in caller.scopes]
    if beyond:
        raise NotAllowed(f"a key can only pass on its own scopes, and this one lacks: {', '.join(beyond)}")
    return await make_key(parts, caller.tenant.id, body, request)


@router.post(
    "/{key}/rotate",
    status_code=201,
    summary="Replace a key",
    openapi_extra=ADMIN_ONLY,
    responses=problems(404, 409, 422),
)
async def rotate_own_key(
    key: KeyId, caller: Holder, request: Request, parts: Parts, overlap_s: OverlapQuery = DEFAULT_OVERLAP_S
) -> IssuedKeyView:
    """A new key of the same name, scopes and limits; both work during the overlap, a day unless it is said."""
    return await replace_key(parts, caller.tenant.id, key, overlap_s, request)


@router.delete("/{key}", summary="Revoke a key", openapi_extra=ADMIN_ONLY, responses=problems(404, 409, 422))
async def revoke_own_key(key: KeyId, caller: Holder, request: Request, parts: Parts) -> KeyView:
    """It opens nothing from now on, also when it is the key of this request."""
    return await end_key(parts, caller.tenant.id, key, request)
