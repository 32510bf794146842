"""The route that automation platforms call: a payload of theirs in, a reply out. It takes no key: the hook's id is the
credential, and the hook may ask for a secret or a signature besides."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Path, Response
from starlette.requests import Request

from agent.config import TenantSettings
from agent.errors import NotFound
from service.http.content import REPLY_HEADERS, ContentReply, create_content
from service.http.hook_brief import brief_of
from service.http.hook_payload import hook_payload
from service.http.openapi import problems
from service.http.state import AppParts, parts_of
from service.webhooks.verification import verify

router = APIRouter(prefix="/v1/hooks", tags=["hooks"])

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "Whatever the platform sends; the hook's mapping makes a brief of it.",
        "content": {
            "application/json": {"schema": {"type": ["object", "array"]}},
            "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
            "multipart/form-data": {"schema": {"type": "object"}},
        },
    }
}


@router.post(
    "/{hook_id}",
    summary="Answer a platform's payload",
    responses={200: {"headers": REPLY_HEADERS}, **problems(403, 404, 413, 415, 422, 500, 503, 504)},
    openapi_extra=_BODY,
)
async def call_hook(
    hook_id: Annotated[str, Path(min_length=1, max_length=64, description="The hook's id.")],
    request: Request,
    response: Response,
    parts: Annotated[AppParts, Depends(parts_of)],
) -> ContentReply:
    """The answer is that of `POST /v1/content` to the brief which the hook's mapping makes of the payload."""
    hook = await parts.node.webhooks.hooks.called(hook_id)
    tenant = _admitted(request, parts, hook.tenant)
    verify(hook.check, request.headers, await request.body())
    content = brief_of(hook.mapping, await hook_payload(request))
    return await create_content(content, request, response, tenant, parts)


def _admitted(request: Request, parts: AppParts, tenant_id: str) -> TenantSettings:
    """The hook's tenant, as the guard of the other routes leaves it."""
    tenant = parts.auth.tenant_of_id(tenant_id)
    if tenant is None:
        raise NotFound("there is no such hook; its tenant is gone")
    request.state.tenant = tenant
    structlog.contextvars.bind_contextvars(tenant=tenant.id)
    return tenant
