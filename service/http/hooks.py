"""The route that automation platforms call: a payload of theirs in, a reply out. It takes no key: the hook's id is the
credential, and the hook may ask for a secret or a signature besides."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from starlette.requests import Request

from agent.errors import NotFound
from service.http.content import REPLY_HEADERS, create_content
from service.http.content_reply import ContentReply
from service.http.disconnect import body_of
from service.http.guard import HookRoute, act_for_hook
from service.http.hold import CALL_HEADERS, HELD_RESPONSES
from service.http.hook_brief import brief_of
from service.http.hook_payload import hook_payload
from service.http.openapi import problems
from service.http.state import Parts
from service.webhooks.verification import verify

router = APIRouter(prefix="/v1/hooks", tags=["hooks"], route_class=HookRoute)

_CALL: dict[str, Any] = {
    "parameters": CALL_HEADERS,
    "requestBody": {
        "required": True,
        "description": "Whatever the platform sends; the hook's mapping makes a brief of it.",
        "content": {
            "application/json": {"schema": {"type": ["object", "array"]}},
            "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
            "multipart/form-data": {"schema": {"type": "object"}},
        },
    },
}


@router.post(
    "/{hook_id}",
    summary="Answer a platform's payload",
    response_model=ContentReply,
    responses={
        200: {"headers": REPLY_HEADERS},
        **HELD_RESPONSES,
        **problems(403, 404, 409, 413, 415, 422, 429, 500, 503, 504),
    },
    openapi_extra=_CALL,
)
async def call_hook(
    hook_id: Annotated[str, Path(min_length=1, max_length=64, description="The hook's id.")],
    request: Request,
    parts: Parts,
) -> Response:
    """The answer is that of `POST /v1/content` to the brief which the hook's mapping makes of the payload."""
    hook = await parts.node.webhooks.hooks.called(hook_id)
    tenant = parts.auth.tenant_of_id(hook.tenant)
    if tenant is None:
        raise NotFound("there is no such hook; its tenant is gone")
    verify(hook.check, request.headers, await body_of(request))
    act_for_hook(request, tenant, hook.id)
    content = brief_of(hook.mapping, await hook_payload(request))
    return await create_content(content, request, tenant, parts)
