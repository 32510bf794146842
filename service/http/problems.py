"""Errors as RFC 9457 problems: one table from exception class to status, code, title and advice.

`problem_of` turns any exception into a `Problem`; `problem_response` sends it. Details are read by people who build
automation scenarios: they say what broke and what to do next. What the node must not tell (the store's address, a stack
trace) stays out: such a row shows its advice alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from agent import errors
from service.http.disconnect import ClientGone
from service.http.openai.errors import openai_error, openai_status, speaks_openai
from service.http.problem_schema import MAX_DETAIL_CHARS, MEDIA_TYPE, FieldError, Problem, rule_message


@dataclass(frozen=True, slots=True)
class Row:
    """How one class of exception is shown."""

    status: int
    code: str
    title: str
    advice: str = ""
    """Follows the exception's message."""
    tells_message: bool = True
    """False keeps the exception's message in the node: callers read `advice` alone."""
    retry_after_s: int | None = None


INVALID = Row(422, "invalid_request", "The request breaks a rule")
_TELL_OPERATOR = "Tell the node's operator, with the request_id; sending it again will not help."
_COME_BACK = "Send the same request again after retry_after seconds."
_NOT_PUBLISHED = "The policy that was serving still serves."

ROWS: Mapping[type[Exception], Row] = {
    Exception: Row(
        500,
        "internal_error",
        "Something broke inside the node",
        "This is a fault of the node. Try once more; if it stays, tell the node's operator the request_id.",
        tells_message=False,
    ),
    TimeoutError: Row(
        504,
        "generation_timeout",
        "The reply took too long",
        "No reply was ready in the time that the node holds a request. Send it again, or ask for fewer max_tokens.",
        tells_message=False,
        retry_after_s=5,
    ),
    RequestValidationError: INVALID,
    ClientGone: Row(499, "client_gone", "The caller hung up"),
    errors.ColoqError: Row(500, "internal_error", "Something broke inside the node", _TELL_OPERATOR, False),
    errors.InvalidInput: INVALID,
    errors.InvalidBrief: Row(422, "invalid_brief", "The brief breaks a rule"),
    errors.IdempotencyKeyReused: Row(422, "idempotency_key_reused", "One idempotency key for two bodies"),
    errors.InvalidConfig: Row(500, "misconfigured", "The node's configuration is wrong", _TELL_OPERATOR, False),
    errors.DestinationRefused: Row(422, "destination_refused", "The node does not call this URL"),
    errors.Refused: Row(403, "refused", "The request was refused"),
    errors.NotAuthenticated: Row(401, "not_authenticated", "No valid key"),
    errors.NotAllowed: Row(403, "not_allowed", "The key is not for this route"),
    errors.NotFound: Row(404, "not_found", "No such thing"),
    errors.ReplyNotKept: Row(
        404,
        "reply_not_kept",
        "The reply is not kept",
        "Feedback can be given once the reply is written, as long as the journal keeps it; one that failed or was"
        " streamed to nobody never was there.",
    ),
    errors.Conflict: Row(409, "conflict", "Not in the current state"),
    errors.TooFewPairs: Row(
        409, "too_few_pairs", "Too few preference pairs", "Collect more feedback in this language first."
    ),
    errors.CanaryRunning: Row(409, "canary_running", "A canary is running", "Stop it first, or wait for its end."),
    errors.NeedsAdapters: Row(409, "needs_adapters", "Not with one copy of the weights"),
    errors.NoAdapterSlot: Row(409, "no_adapter_slot", "No adapter slot is free"),
    errors.JobCancelled: Row(
        409,
        "job_cancelled",
        "The job was cancelled",
        "For a new job send the request again: under another Idempotency-Key if it had one, with X-Idempotency-Mode:"
        " header if it was known by its body.",
    ),
    errors.JobAbandoned: Row(
        500,
        "job_abandoned",
        "The job was given up",
        "Send the request again; if it stays, tell the node's operator the request_id.",
    ),
    errors.LimitReached: Row(429, "limit_reached", "A limit is reached", _COME_BACK),
    errors.RateLimited: Row(429, "rate_limited", "Too many requests or tokens in a minute", _COME_BACK),
    errors.ConcurrencyLimited: Row(429, "concurrency_limited", "Too many requests at one time", _COME_BACK),
    errors.QuotaExhausted: Row(429, "quota_exhausted", "The day's quota is used up", _COME_BACK),
    errors.QueueFull: Row(429, "queue_full", "Too many requests wait for the engine", _COME_BACK),
    errors.HookNotVerified: Row(403, "hook_not_verified", "The hook's secret or signature is missing or wrong"),
    errors.EngineError: Row(
        500,
        "generation_failed",
        "The reply could not be generated",
        "This one request failed inside the engine. Send it again; if it stays, tell the node's operator the"
        " request_id.",
        tells_message=False,
    ),
    errors.EngineDead: Row(
        503,
        "engine_unavailable",
        "The engine is not running",
        "The engine is restarting. Send the same request again after retry_after seconds.",
        tells_message=False,
        retry_after_s=15,
    ),
    errors.PromptTooLong: Row(
        422,
        "prompt_too_long",
        "The request does not fit the model",
        "Shorten text or instructions, or ask for fewer max_tokens.",
    ),
    errors.SchemaNotMet: Row(
        422,  # decoding keeps to the schema, so it is the request that asks for too much; repeating it does not help
        "schema_not_met",
        "The reply does not fit the schema",
        "Ask for more max_tokens or a smaller schema: a reply that is cut off is no JSON.",
    ),
    errors.StoreError: Row(
        503,
        "store_unavailable",
        "The store is not reachable",
        "The node cannot reach its store. Send the same request again after retry_after seconds.",
        tells_message=False,
        retry_after_s=5,
    ),
    errors.UnreadableRecord: Row(500, "record_unreadable", "A stored record cannot be read", _TELL_OPERATOR, False),
    errors.ModelError: Row(500, "model_unavailable", "A model is not usable", _TELL_OPERATOR, False),
    errors.RewardModelFailed: Row(
        500, "reward_model_failed", "The reward model is not usable", "What judged before still judges."
    ),
    errors.TuningError: Row(500, "tuning_failed", "Tuning failed", "Serving goes on."),
    errors.TrainerFailed: Row(500, "trainer_failed", "The trainer failed", _NOT_PUBLISHED),
    errors.ParityFailed: Row(500, "parity_failed", "Engine and trainer disagree", _NOT_PUBLISHED),
    errors.GateRejected: Row(409, "gate_rejected", "The candidate is worse than what serves", _NOT_PUBLISHED),
    errors.PublicationFailed: Row(500, "publication_failed", "The policy could not be published", _NOT_PUBLISHED),
}
"""The table. An exception takes the row of the nearest class in its method resolution order."""

STATUS_ROWS: Mapping[int, Row] = {
    400: Row(400, "invalid_json", "The body is not JSON"),
    404: Row(404, "route_not_found", "No such route"),
    405: Row(405, "method_not_allowed", "The route has no such method"),
    408: Row(408, "request_timeout", "The request did not come in time"),
    413: Row(413, "body_too_large", "The body is too large"),
    415: Row(415, "unsupported_media_type", "The body is not declared as JSON, or it is compressed"),
    431: Row(431, "headers_too_large", "The header fields are too large"),
}
"""Rows of what the framework raises as `HTTPException`, by status."""


def row_of(error: Exception) -> Row:
    """The table's row for an exception."""
    if isinstance(error, HTTPException):
        return STATUS_ROWS.get(error.status_code, Row(error.status_code, "http_error", "The request failed"))
    return next(ROWS[cls] for cls in type(error).__mro__ if cls in ROWS)


def problem_of(
    error: Exception,
    *,
    instance: str,
    request_id: str,
    detail: str | None = None,
    field_errors: list[FieldError] | None = None,
) -> Problem:
    """The problem that tells of `error`. `detail` replaces the exception's message."""
    row = row_of(error)
    limited = error if isinstance(error, errors.LimitReached) else None
    return Problem(
        type=f"urn:coloq:problem:{row.code}",
        title=row.title,
        status=row.status,
        detail=_shortened(detail if detail is not None else _detail(error, row)),
        instance=instance,
        code=row.code,
        request_id=request_id,
        retry_after=math.ceil(limited.retry_after_s) if limited is not None else row.retry_after_s,
        limit=limited.limit if limited is not None else None,
        running_id=error.blocking_id if isinstance(error, errors.Conflict) else None,
        errors=field_errors,
    )


def broken_rules(error: Exception) -> list[FieldError] | None:
    """The rule that an InvalidInput names; None for any other error."""
    if not isinstance(error, errors.InvalidInput):
        return None
    return [FieldError(field=error.field, message=rule_message(error.field, error.message))]


def problem_response(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The problem as a response, with the headers that its status calls for; in OpenAI's shape on OpenAI's routes."""
    merged = dict(headers or {})
    if problem.status == 401:
        merged["WWW-Authenticate"] = 'Bearer realm="coloq"'
    if problem.retry_after is not None:
        merged["Retry-After"] = str(problem.retry_after)
    if speaks_openai(problem.instance):
        body = openai_error(problem).model_dump_json()
        return Response(body, openai_status(problem.status), headers=merged, media_type="application/json")
    body = problem.model_dump_json(exclude_none=True)
    return Response(body, status_code=problem.status, headers=merged, media_type=MEDIA_TYPE)


def _detail(error: Exception, row: Row) -> str:
    message = _message(error) if row.tells_message else ""
    if not message:
        return row.advice or row.title
    return f"{_sentence(message)} {row.advice}" if row.advice else message


def _message(error: Exception) -> str:
    if isinstance(error, HTTPException):
        return error.detail
    if isinstance(error, errors.InvalidInput):
        return rule_message(error.field, error.message)
    return str(error)


def _sentence(message: str) -> str:
    return message if message.endswith((".", "!", "?")) else f"{message}."


def _shortened(detail: str) -> str:
    return detail if len(detail) <= MAX_DETAIL_CHARS else detail[: MAX_DETAIL_CHARS - 1] + "…"
