"""OpenAI's routes: chat completions and models."""

import asyncio
import time
from typing import Annotated

from fastapi import APIRouter, Header, Path, Response, Security
from starlette.requests import Request

from agent.errors import NotFound
from service.http.content import REPLY_HEADERS
from service.http.disconnect import while_connected
from service.http.guard import TENANT_KEY, TenantRoute
from service.http.openai.errors import openai_errors
from service.http.openai.models import ALIAS, Model, ModelList, find_version
from service.http.openai.reply import ChatCompletion, headers_of
from service.http.openai.request import ChatRequest
from service.http.openai.stream import ChatStream
from service.http.sse import documented_stream
from service.http.state import Parts, Tenant, request_id_of

router = APIRouter(
    prefix="/v1",
    tags=["openai"],
    route_class=TenantRoute,
    dependencies=[Security(TENANT_KEY)],
    responses=openai_errors(401, 403, 429),
)

LanguageHeader = Annotated[
    str | None,
    Header(max_length=35, description="Language that the reply is judged by; one of the tenant's.", examples=["de"]),
]


@router.post(
    "/chat/completions",
    summary="Go on with a conversation",
    response_model=ChatCompletion,
    responses={
        200: {
            "description": "The completion; with `stream`, its chunks.",
            "headers": REPLY_HEADERS
            | {"X-Language": {"description": "The language that it is judged by.", "schema": {"type": "string"}}},
            "content": documented_stream("A chunk as JSON; the last one is `[DONE]`."),
        },
        **openai_errors(400, 404, 413, 415, 500, 503, 504),
    },
)
async def create_chat_completion(
    body: ChatRequest,
    request: Request,
    response: Response,
    tenant: Tenant,
    parts: Parts,
    x_language: LanguageHeader = None,
) -> ChatCompletion | Response:
    """As OpenAI's clients call it. The reply's language is judged, not asked for: by `metadata.language`, the header
    `X-Language`, the tenant's only language, or else the one of its languages that the last message is in. With one of
    the first two, a single answer in another language is sampled once more, unless it is streamed."""
    sampling = body.sampling(parts.config.agent)
    dialogue = body.dialogue(tenant, x_language, await find_version(body.model, parts.node.policies, tenant.id))
    request_id, created, logprobs = request_id_of(request), int(time.time()), bool(body.logprobs)
    if body.stream:
        options = body.stream_options
        usage = options is not None and bool(options.include_usage)
        stream = ChatStream(request_id, body.model, created, body.n or 1, logprobs, usage)
        return await stream.open(dialogue, sampling, request, parts)
    hold_s = parts.config.agent.hold_s
    work = parts.node.chat.answer(dialogue, sampling, request_id=request_id, num_choices=body.n or 1, wait_s=hold_s)
    async with asyncio.timeout(hold_s):
        reply = await while_connected(request.receive, work)
    response.headers.update(headers_of(reply))
    return ChatCompletion.of(reply, created=created, logprobs=logprobs)


@router.get("/models", summary="List the models that can be asked for", responses=openai_errors(503))
async def list_models(tenant: Tenant, parts: Parts) -> ModelList:
    """`coloq` is the policy that answers; the others are the published versions that the engine holds, another tenant's
    own not among them."""
    policies = parts.node.policies
    return ModelList.of(list(await policies.served(tenant.id)), policies.active_version)


@router.get("/models/{model}", summary="One model", responses=openai_errors(400, 404, 503))
async def get_model(
    model: Annotated[str, Path(min_length=1, max_length=200, description="`coloq`, or a version.", examples=[ALIAS])],
    tenant: Tenant,
    parts: Parts,
) -> Model:
    """404 when it cannot be asked for now."""
    version = await find_version(model, parts.node.policies, tenant.id)
    listed = ModelList.of(list(await parts.node.policies.served(tenant.id)), parts.node.policies.active_version)
    found = next((entry for entry in listed.data if entry.id == model), None)
    if found is None:
        raise NotFound(f"model {model!r} (version {version}) is not served any longer")
    return found
