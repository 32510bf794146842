"""The operator's routes that decide who gets which policy: canary, promote, roll back, pin."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Security
from starlette.requests import Request

from agent.config import TenantSettings
from agent.errors import InvalidInput
from agent.language import primary_code
from service.http.canary_schema import CanaryBody, CanaryView, PinBody, PromoteBody, RollbackBody, TrialView
from service.http.guard import ADMIN_KEY, AdminRoute, changed
from service.http.openapi import problems
from service.http.state import AppParts, Parts
from service.http.tenant_schema import TenantView
from service.http.tuning_schema import PolicyView
from service.tenancy.audit import digest
from trainer.records import PolicyRecord

router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    route_class=AdminRoute,
    dependencies=[Security(ADMIN_KEY)],
    responses=problems(401, 403, 503),
)

Version = Annotated[int, Path(ge=0, description="A published policy's version; 0 is the untuned model.")]
_WRITES = problems(400, 404, 409, 413, 415, 422, 500)


@router.get("/canary", summary="The canary in progress, and those that ended")
async def get_canary(parts: Parts) -> CanaryView:
    """Differences are shown once both sides have twenty values."""
    policies = dict(parts.node.tenant_policies.versions)
    return CanaryView.of(await parts.node.canaries.status(), policies)


@router.delete("/canary", summary="Stop the canary", responses=problems(409))
async def stop_canary(parts: Parts) -> TrialView:
    """Everybody gets the stable policy; requests in flight finish on the one they began with."""
    return TrialView.of(await parts.node.canaries.stop())


@router.post(
    "/policies/{version}/canary", status_code=201, summary="Try a policy on a share of the traffic", responses=_WRITES
)
async def start_canary(version: Version, body: CanaryBody, parts: Parts) -> TrialView:
    """A hash chooses who gets it, so that one end user stays on one side. It is taken back when it does harm in any
    language, and promoted when it is shown to be no worse; see the section `[canary]` of the configuration."""
    return TrialView.of(await parts.node.canaries.start(version, share=body.share, languages=body.languages))


@router.post("/policies/{version}/promote", summary="Give a policy to everybody, or to one tenant", responses=_WRITES)
async def promote_policy(version: Version, body: PromoteBody, request: Request, parts: Parts) -> PolicyView:
    """As `activate`, after checks: no canary of another policy is running, and its last trial found no harm. Its
    canary ends; then it is watched, and rolled back by itself on harm. With `tenant` it is that tenant's own policy."""
    before = _answering(parts, body.tenant)
    if body.tenant is None:
        record = await parts.node.canaries.promote(version, force=body.force)
    else:
        record = await parts.node.tenant_policies.give(parts.node.policies, body.tenant, version)
    return _moved(parts, request, before, _answering(parts, body.tenant), record)


@router.post("/policies/{version}/rollback", summary="Take a policy back", responses=_WRITES)
async def rollback_policy(version: Version, body: RollbackBody, request: Request, parts: Parts) -> PolicyView:
    """Of the active policy: everybody gets the one that was active before, or `to`. Of a canary: it is stopped. With
    `tenant`, of that tenant's own policy: it gets its one before, or the common policy. Answers with what serves now.
    """
    before = _answering(parts, body.tenant)
    if body.tenant is None:
        record = await parts.node.canaries.rollback(version, to=body.to)
    else:
        policies = parts.node.policies
        record = await parts.node.tenant_policies.take_back(policies, body.tenant, version, to=body.to)
    return _moved(parts, request, before, _answering(parts, body.tenant), record)


@router.post("/policies/{version}/pin", summary="Keep a tenant on a policy", responses=_WRITES)
async def pin_policy(version: Version, body: PinBody, request: Request, parts: Parts) -> TenantView:
    """The same as setting `policy` in the tenant's settings, or in one of its languages. A pin goes before the tenant's
    own policy, a canary and the active policy, and keeps an adapter slot."""
    return await _pin(body.tenant, body.language, version, request, parts)


@router.delete("/policies/{version}/pin", summary="Let a tenant follow what is active again", responses=_WRITES)
async def unpin_policy(
    version: Version,
    request: Request,
    parts: Parts,
    tenant: Annotated[str, Query(min_length=1, max_length=63, description="The tenant.")],
    language: Annotated[str | None, Query(max_length=35, description="One language; without it, the tenant.")] = None,
) -> TenantView:
    """Nothing changes when the pin is another version's."""
    settings = parts.node.tenancy.get(tenant).settings
    pinned = settings.policy if language is None else settings.languages[_code(settings, language)].policy
    return await _pin(tenant, language, None if pinned == version else pinned, request, parts)


async def _pin(tenant: str, language: str | None, version: int | None, request: Request, parts: AppParts) -> TenantView:
    before = parts.node.tenancy.get(tenant)
    settings = before.settings
    if language is None:
        pinned = settings.model_copy(update={"policy": version})
    else:
        code = _code(settings, language)
        own = settings.languages[code].model_copy(update={"policy": version})
        pinned = settings.model_copy(update={"languages": {**settings.languages, code: own}})
    record = before if pinned == settings else await parts.node.tenancy.replace(pinned)
    changed(request, before=digest(settings.model_dump_json()), after=digest(record.settings.model_dump_json()))
    return TenantView.of(record, parts.node.limits.used_today(record.id))


def _code(settings: TenantSettings, language: str) -> str:
    """The tenant's own spelling of a language."""
    found = next((code for code in settings.languages if primary_code(code) == primary_code(language)), None)
    if found is None:
        known = ", ".join(sorted(settings.languages))
        raise InvalidInput("language", f"must be a language of the tenant ({known}), got {language}")
    return found


def _answering(parts: AppParts, tenant: str | None) -> str:
    """Which policy answers everybody, or one tenant."""
    own = None if tenant is None else parts.node.tenant_policies.versions.get(tenant)
    return str(parts.node.policies.active_version if own is None else own)


def _moved(parts: AppParts, request: Request, before: str, after: str, record: PolicyRecord) -> PolicyView:
    changed(request, before=digest(before), after=digest(after))
    return PolicyView.of(record, parts.node.policies.active_version)
