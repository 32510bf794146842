"""How a call waits for its answer: held for a while, then a job.

                         the answer in time ─► 200, or its problem
    a plain call ─► work ─┤ the caller hangs up ─► the work is cancelled
                         └ too long, or the node stops ─► the work becomes a job ─► 202

                                            the answer in time ─► 200, or its problem
    a call with a key or a callback ─► job ─┤ the caller hangs up ─► the job goes on
                                            └ too long, or the node stops ─► 202

A job counts against the limits of what runs at one time until it is done: it takes the place that its call had.

A route hands in an `Order`, with the work that it has understood it to be, and gets a `Response`. A plain call does
that work; a job is carried out from its stored order, by the executor.
"""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from agent.errors import InvalidInput
from service.config import NodeConfig
from service.http.disconnect import ClientGone, disconnection
from service.http.jobs_schema import POLL_AFTER_S, JobView
from service.http.prefer import Preference, preference_of
from service.http.state import parts_of, passage_of
from service.http.validation import shown
from service.idempotency import (
    AUTOMATIC,
    HEADER,
    MODE_HEADER,
    IdempotencyKey,
    KeyLife,
    fingerprint_of,
    key_of_body,
    key_of_caller,
)
from service.jobs.desk import JobDesk
from service.jobs.records import Answer, Job, Order
from service.tasks import end

CALL_HEADERS: list[dict[str, Any]] = [
    {
        "name": "Prefer",
        "in": "header",
        "required": False,
        "description": "`wait=10` is answered after at most 10 s, with 202 if need be; `respond-async` at once.",
        "schema": {"type": "string"},
        "example": "wait=10",
    },
    {
        "name": HEADER,
        "in": "header",
        "required": False,
        "description": "Your own id of this action: however often it is sent, it is done once. `auto` takes the body.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 257},
        "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
    },
    {
        "name": MODE_HEADER,
        "in": "header",
        "required": False,
        "description": "`body` recognises a repeated call by its body, `header` by `Idempotency-Key` alone.",
        "schema": {"type": "string", "enum": ["body", "header"]},
    },
]
"""OpenAPI parameters of a route that answers through `answer`."""

HELD_RESPONSES: dict[int | str, dict[str, Any]] = {
    202: {
        "model": JobView,
        "description": "Not ready in time: a job. Poll `Location` until it is final.",
        "headers": {
            "Location": {"description": "Where the job is.", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds until the first look.", "schema": {"type": "integer"}},
            "Preference-Applied": {"description": "What of `Prefer` was done.", "schema": {"type": "string"}},
        },
    },
}


@dataclass(frozen=True, slots=True)
class Call:
    """One call that waits."""

    order: Order
    key: IdempotencyKey | None
    preference: Preference

    @property
    def outlives_its_caller(self) -> bool:
        """True when the work goes on although nobody waits for it."""
        return self.key is not None or self.order.callback_url is not None


def call_of(request: Request, order: Order, config: NodeConfig, *, mode: str) -> Call:
    """The call that a request makes of an order, whose body says what was understood: two bodies that mean the same are
    equal in it.

    Args:
        mode: how repetitions are recognised where the request's headers do not say.

    Raises:
        InvalidInput: the idempotency headers break a rule.
    """
    preference = preference_of(
        request.headers.getlist("prefer"), hold_s=config.agent.hold_s, max_wait_s=config.jobs.max_wait_s
    )
    held = replace(order, wait_s=preference.wait_s or None)
    return Call(held, _key(request, order, config, mode), preference)


async def answer(request: Request, call: Call, work: Callable[[], Coroutine[Any, Any, Answer]]) -> Response:
    """The response to a call, after at most its preference's wait.

    Args:
        work: the order, read and checked; not called for a call that is a job from its start.

    Raises:
        ClientGone: the caller hung up.
        ColoqError: what the work of a plain call raised, or the job could not be accepted.
    """
    desk = parts_of(request).node.jobs
    if call.outlives_its_caller or call.preference.wait_s == 0:
        response = await _as_job(request, desk, call)
    else:
        response = await _plain(request, desk, call, asyncio.create_task(work()))
    if call.preference.applied is not None:
        response.headers["Preference-Applied"] = call.preference.applied
    return response


async def _plain(request: Request, desk: JobDesk, call: Call, work: "asyncio.Task[Answer]") -> Response:
    try:
        if await _held(request, desk, work, call.preference.wait_s):
            return _answered(work.result())
        job_id = await desk.adopt(call.order, work, passage_of(request))
    except BaseException:
        await end([work])
        raise
    return _accepted(await desk.promised(call.order.tenant, job_id))


async def _as_job(request: Request, desk: JobDesk, call: Call) -> Response:
    tenant, wait_s = call.order.tenant, call.preference.wait_s
    submission = await desk.accept(call.order, call.key, at_once=wait_s > 0, slot=passage_of(request))
    if not submission.created:
        parts_of(request).node.limits.repeated(passage_of(request))
    job = await _final(request, desk, tenant, submission.job_id, wait_s) if wait_s > 0 else None
    if job is None:
        job = await desk.promised(tenant, submission.job_id)
    if job.answer is None:
        return _accepted(job)
    if call.key is not None:
        await desk.answered(job)
    return _answered(job.answer, replayed=not submission.created)


async def _final(request: Request, desk: JobDesk, tenant: str, job_id: str, wait_s: float) -> Job | None:
    """The final job, or None when the caller was held long enough."""
    waiting = asyncio.create_task(desk.until_final(tenant, job_id))
    try:
        return waiting.result() if await _held(request, desk, waiting, wait_s) else None
    finally:
        await end([waiting])


async def _held(request: Request, desk: JobDesk, work: "asyncio.Task[Any]", wait_s: float) -> bool:
    """True when the work is done, False when the caller was held long enough or the node stops.

    Raises:
        ClientGone: the caller hung up first.
    """
    gone = asyncio.create_task(disconnection(request.receive))
    try:
        await asyncio.wait({work, gone, desk.released}, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await end([gone])
    if not work.done() and not gone.cancelled():
        raise ClientGone("the caller closed the connection")
    return work.done()


def _key(request: Request, order: Order, config: NodeConfig, mode: str) -> IdempotencyKey | None:
    life = KeyLife(config.jobs.idempotency_ttl_s, config.jobs.answered_body_ttl_s)
    headers = request.headers.getlist(HEADER)
    if len(headers) > 1:
        raise InvalidInput(HEADER, f"must be sent once, got {len(headers)} of them")
    mode = request.headers.get(MODE_HEADER, mode)
    if mode not in ("header", "body"):
        raise InvalidInput(MODE_HEADER, f"must be one of header, body, got {shown(mode)}")
    if headers and headers[0].strip(' "') != AUTOMATIC:
        return key_of_caller(headers[0], order.route, _fingerprint(order), life)
    if headers or mode == "body":
        return key_of_body(order.route, _fingerprint(order), life)
    return None


def _fingerprint(order: Order) -> str:
    return fingerprint_of(json.loads(order.body))


def _answered(answer: Answer, *, replayed: bool = False) -> Response:
    headers = dict(answer.headers) | ({"Idempotency-Replayed": "true"} if replayed else {})
    return Response(answer.body, status_code=answer.status, headers=headers, media_type=answer.media_type)


def _accepted(job: Job) -> Response:
    view = JobView.of(job)
    headers = {"Location": view.poll_url, "Retry-After": str(POLL_AFTER_S)}
    return Response(view.model_dump_json(), status_code=202, headers=headers, media_type="application/json")
