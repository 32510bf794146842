"""The tenants' routes: content, and who am I."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response, Security
from pydantic import BaseModel, Field
from starlette.requests import Request

from agent.config import LimitSettings, TenantSettings
from agent.errors import InvalidBrief
from agent.verdict import Verdict
from service.http.content_order import CONTENT_ROUTE, ContentOrder
from service.http.content_reply import ContentReplies, ContentReply
from service.http.content_schema import ContentRequest
from service.http.content_stream import stream_content
from service.http.guard import TENANT_KEY, TenantRoute, needs
from service.http.hold import CALL_HEADERS, HELD_RESPONSES, Call, answer, call_of
from service.http.openapi import problems
from service.http.sse import documented_stream
from service.http.state import AppParts, caller_of, get_caller, get_parts, get_tenant, request_id_of
from service.jobs.records import Order
from service.tenancy.caller import Caller
from service.tenancy.record import Scope

router = APIRouter(
    prefix="/v1",
    tags=["content"],
    route_class=TenantRoute,
    dependencies=[Security(TENANT_KEY)],
    responses=problems(401, 403),
)


class Limits(BaseModel):
    """What one request may ask for."""

    max_tokens: int = Field(description="Longest reply, in tokens.")
    max_body_bytes: int = Field(description="Largest request body.")
    hold_s: float = Field(description="How long a call is held before it becomes a job, in seconds.")


class Me(BaseModel):
    """The tenant that holds the key."""

    tenant: str = Field(examples=["acme"])
    languages: list[str] = Field(description="ISO 639-1 codes that may be asked for.", examples=[["de", "en"]])
    scopes: list[Scope] = Field(description="What this key may do.", examples=[["generate", "read"]])
    limits: Limits
    rates: LimitSettings = Field(description="Limits of the tenant; what is null is not limited.")
    key_rates: LimitSettings = Field(description="Limits of this key, beside the tenant's.")


REPLY_HEADERS = {
    "X-Request-Id": {"description": "The request's id.", "schema": {"type": "string"}},
    "X-Policy-Version": {"description": "The policy that wrote the reply.", "schema": {"type": "integer"}},
    "X-Language-Verdict": {
        "description": "The reply's language verdict.",
        "schema": {"type": "string", "enum": [verdict.value for verdict in Verdict]},
    },
}


@router.post(
    "/content",
    summary="Write, correct, translate or rewrite content, or suggest some",
    response_model=ContentReply | ContentReplies,
    responses={
        200: {
            "description": "The reply, or one for each of `languages`; with `stream`, events.",
            "headers": REPLY_HEADERS,
            "content": documented_stream(
                "JSON: a part of the text, then the whole reply, or a problem.", "delta", "done", "error"
            ),
        },
        **HELD_RESPONSES,
        **problems(400, 409, 413, 415, 422, 500, 503, 504),
    },
    openapi_extra={"parameters": CALL_HEADERS},
)
async def create_content(
    body: ContentRequest,
    request: Request,
    tenant: Annotated[TenantSettings, Depends(get_tenant)],
    parts: Annotated[AppParts, Depends(get_parts)],
) -> Response:
    """One brief in, one reply out, or one for each language. The call is held until the reply is ready, at most
    `hold_s` seconds; then it becomes a job and the answer is 202. Hanging up cancels the generation, unless the call
    has an `Idempotency-Key` or a `callback_url`. A stream is held as long as its text goes on, and is never a job."""
    order = ContentOrder.of(body, tenant, parts.config.agent, request_id_of(request))
    call = await _call_of(body, request, tenant, parts)
    if not body.stream:
        return await answer(request, call, lambda: order.carry_out(parts.node.content, wait_s=call.order.wait_s))
    if call.outlives_its_caller:
        raise InvalidBrief("stream", "must not stand beside an idempotency key or callback_url: a stream is not kept")
    return await stream_content(order, request, parts)


async def _call_of(body: ContentRequest, request: Request, tenant: TenantSettings, parts: AppParts) -> Call:
    callback_url = body.callback_url
    if callback_url is not None:
        callback_url = await parts.node.webhooks.deliveries.check_callback(tenant.id, callback_url)
    understood = body.model_dump_json(exclude_none=True, by_alias=True)
    key_id = caller_of(request).key_id
    order = Order(tenant.id, CONTENT_ROUTE, understood, request_id_of(request), callback_url, key_id=key_id)
    # A stream cannot be answered again, so a tenant's own setting is not for streams.
    return call_of(request, order, parts.config, mode="header" if body.stream else tenant.idempotency)


@router.get("/me", summary="Who holds this key, and what it may ask for", openapi_extra=needs(None))
async def get_me(
    caller: Annotated[Caller, Depends(get_caller)],
    parts: Annotated[AppParts, Depends(get_parts)],
) -> Me:
    """Cheap: no store, no engine. Use it as a connection test."""
    return Me(
        tenant=caller.tenant.id,
        languages=sorted(caller.tenant.languages),
        scopes=[scope for scope in Scope if scope in caller.scopes],
        rates=caller.tenant.limits,
        key_rates=caller.limits,
        limits=Limits(
            max_tokens=parts.config.agent.max_tokens,
            max_body_bytes=parts.config.server.max_body_bytes,
            hold_s=parts.config.agent.hold_s,
        ),
    )
