"""The tenants' routes for inbound hooks: mappings from a platform's payload to a brief."""

from typing import Annotated

from fastapi import Path

from service.http.guard import ADMIN_ONLY, tenant_router
from service.http.hook_brief import as_fields, brief_of, checked_brief
from service.http.openapi import problems
from service.http.state import Parts, Tenant
from service.http.webhook_schema import HookBody, HookList, HookPatch, HookView, HookWithSecret, Preview, PreviewBody
from service.webhooks.hooks import HookChange

router = tenant_router("/v1/hooks-config", "hooks")

HookId = Annotated[str, Path(min_length=1, max_length=64, description="A hook's id.")]


@router.post(
    "",
    status_code=201,
    summary="Add an inbound hook",
    responses=problems(400, 409, 413, 415, 422),
    openapi_extra=ADMIN_ONLY,
)
async def create_hook(body: HookBody, tenant: Tenant, parts: Parts) -> HookWithSecret:
    """The mapping is tried on the example before it is stored. A platform then sends its payloads to `path`, without a
    key; the hook's secret, when it has one, is in this answer only."""
    checked_brief(body.mapping, body.example, tenant, parts.config.agent)
    hook = await parts.node.webhooks.hooks.create(tenant.id, body.name, body.mapping, body.example, body.check())
    return HookWithSecret.showing(hook, secret=True)


@router.get("", summary="List inbound hooks, oldest first", openapi_extra=ADMIN_ONLY)
async def list_hooks(tenant: Tenant, parts: Parts) -> HookList:
    """Without secrets."""
    return HookList(hooks=[HookView.of(hook) for hook in await parts.node.webhooks.hooks.list(tenant.id)])


@router.get("/{hook_id}", summary="An inbound hook", responses=problems(404, 422), openapi_extra=ADMIN_ONLY)
async def get_hook(hook_id: HookId, tenant: Tenant, parts: Parts) -> HookView:
    """Without its secret."""
    return HookView.of(await parts.node.webhooks.hooks.get(tenant.id, hook_id))


@router.patch(
    "/{hook_id}",
    summary="Change an inbound hook",
    responses=problems(400, 404, 413, 415, 422),
    openapi_extra=ADMIN_ONLY,
)
async def update_hook(hook_id: HookId, body: HookPatch, tenant: Tenant, parts: Parts) -> HookWithSecret:
    """Mapping and example, whichever is new, are tried together. A new verification has a new secret."""
    hooks = parts.node.webhooks.hooks
    hook = await hooks.get(tenant.id, hook_id)
    if body.mapping is not None or body.example is not None:
        mapping = hook.mapping if body.mapping is None else body.mapping
        example = hook.example if body.example is None else body.example
        checked_brief(mapping, example, tenant, parts.config.agent)
    check = None if body.verification is None else body.verification.check()
    changed = await hooks.update(
        tenant.id, hook_id, HookChange(body.name, body.enabled, body.mapping, body.example, check)
    )
    return HookWithSecret.showing(changed, secret=check is not None)


@router.delete(
    "/{hook_id}",
    status_code=204,
    summary="Delete an inbound hook",
    responses=problems(404, 422),
    openapi_extra=ADMIN_ONLY,
)
async def delete_hook(hook_id: HookId, tenant: Tenant, parts: Parts) -> None:
    """Its address answers 404 from then on."""
    await parts.node.webhooks.hooks.delete(tenant.id, hook_id)


@router.post(
    "/{hook_id}/preview",
    summary="Show the brief that a payload makes",
    responses=problems(400, 404, 413, 415, 422),
    openapi_extra=ADMIN_ONLY,
)
async def preview_hook(hook_id: HookId, body: PreviewBody, tenant: Tenant, parts: Parts) -> Preview:
    """Nothing is generated. Without a payload the hook's example is taken."""
    hook = await parts.node.webhooks.hooks.get(tenant.id, hook_id)
    payload = hook.example if body.payload is None else body.payload
    return Preview(brief=as_fields(brief_of(hook.mapping, payload)))
