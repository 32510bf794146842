"""The tenants' routes of feedback: say something of a reply, and see what was said."""

from typing import Annotated, Any

from fastapi import Query
from starlette.requests import Request

from agent.errors import InvalidInput
from service.feedback.records import ReplyRef
from service.http.feedback_schema import (
    EXAMPLE_ID,
    MAX_ID_CHARS,
    FeedbackList,
    FeedbackReceipt,
    FeedbackRequest,
)
from service.http.guard import needs, tenant_router
from service.http.hold import CALL_HEADERS
from service.http.openapi import problems
from service.http.state import AppParts, Holder, Parts
from service.http.validation import EMPTY_IS_NONE
from service.idempotency import AUTOMATIC, HEADER, IdempotencyKey, KeyLife, fingerprint_of, key_of_caller
from service.tenancy.record import Scope

FEEDBACK_ROUTE = "/v1/feedback"
KEY_HEADER = next(header for header in CALL_HEADERS if header["name"] == HEADER)

router = tenant_router(FEEDBACK_ROUTE, "feedback")

RequestIdQuery = Annotated[
    str, Query(min_length=1, max_length=MAX_ID_CHARS, description="The reply's `request_id`.", examples=[EXAMPLE_ID])
]
LanguageQuery = Annotated[
    str | None,
    Query(min_length=2, max_length=35, description="Which reply of a call for several languages."),
    EMPTY_IS_NONE,
]


@router.post(
    "",
    summary="Say what became of a reply",
    responses=problems(400, 404, 413, 415, 422),
    openapi_extra=needs(Scope.FEEDBACK) | {"parameters": [KEY_HEADER]},
)
async def give_feedback(body: FeedbackRequest, request: Request, caller: Holder, parts: Parts) -> FeedbackReceipt:
    """Rating, thumbs, comparison, edited or published text, comment, or what became of it unseen; several at once, and
    as late as the journal keeps the reply. The same said twice counts once: the newest word of a person counts."""
    order = body.order()
    key = _key(request, body.model_dump(mode="json", exclude_none=True), parts)
    return FeedbackReceipt.of(await parts.node.feedback.desk.give(caller, order, key))


@router.get("", summary="What is kept for a reply", responses=problems(404, 422))
async def list_feedback(
    request_id: RequestIdQuery, caller: Holder, parts: Parts, language: LanguageQuery = None
) -> FeedbackList:
    """Every piece, also those that a later word of the same person took the place of."""
    return FeedbackList.of(*await parts.node.feedback.desk.given(caller, ReplyRef(request_id, language=language)))


def _key(request: Request, canonical: Any, parts: AppParts) -> IdempotencyKey | None:
    """The call's own key; without one the content tells repetitions."""
    headers = request.headers.getlist(HEADER)
    if len(headers) > 1:
        raise InvalidInput(HEADER, f"must be sent once, got {len(headers)} of them")
    if not headers or headers[0].strip(' "') == AUTOMATIC:
        return None
    life = KeyLife(parts.config.jobs.idempotency_ttl_s, parts.config.jobs.answered_body_ttl_s)
    return key_of_caller(headers[0], FEEDBACK_ROUTE, fingerprint_of(canonical), life)
