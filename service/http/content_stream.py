"""`POST /v1/content` with `stream`: the text as it comes, then the reply that counts.

    event: delta   {"language": "de", "text": "Unsere neue "}
    event: done    the whole reply, as without `stream`
    event: error   a problem, when the reply failed after the stream had begun

Until the first text there is no stream: a request that fails before is answered with its status, as without `stream`.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial
from itertools import groupby

from starlette.requests import Request

from agent.ports import Delta
from service.http.content_order import ContentOrder
from service.http.disconnect import while_connected
from service.http.handlers import log_failure, path_of
from service.http.problems import problem_of
from service.http.sse import HEARTBEAT, EventStream, Feed, cancelled, event
from service.http.state import AppParts
from service.jobs.records import Answer

Piece = tuple[str, str]
"""Language and text."""


async def stream_content(order: ContentOrder, request: Request, parts: AppParts) -> EventStream:
    """The events of an order, once there is one to send.

    Raises:
        ColoqError: the order failed before that.
        ClientGone: the caller hung up before that.
    """
    feed: Feed[Piece] = Feed()
    listeners = [partial(_tell, feed, brief.language) for brief in order.briefs]
    work = asyncio.create_task(order.carry_out(parts.node.content, listeners))
    try:
        await while_connected(request.receive, feed.opened(work))
    except BaseException:
        await cancelled(work)
        raise
    events = _events(feed, work, order, path_of(request), parts.config.agent.hold_s)
    return EventStream(events, work, {})


def _tell(feed: Feed[Piece], language: str, delta: Delta) -> None:
    if delta.text:
        feed.put((language, delta.text))


async def _events(
    feed: Feed[Piece], work: "asyncio.Task[Answer]", order: ContentOrder, path: str, silence_s: float
) -> AsyncIterator[bytes]:
    try:
        async for batch in feed.batches(work, silence_s=silence_s):
            yield b"".join(map(_delta, _merged(batch))) or HEARTBEAT
        yield event(work.result().body, "done")
    except Exception as error:  # noqa: BLE001 - the stream has begun, so its last event is all that can tell
        log_failure(error)
        problem = problem_of(error, instance=path, request_id=order.request_id)
        yield event(problem.model_dump_json(exclude_none=True), "error")


def _merged(batch: list[Piece]) -> list[Piece]:
    """Neighbours of one language as one piece."""
    return [
        (language, "".join(text for _, text in pieces))
        for language, pieces in groupby(batch, key=lambda piece: piece[0])
    ]


def _delta(piece: Piece) -> bytes:
    language, text = piece
    return event(json.dumps({"language": language, "text": text}, ensure_ascii=False), "delta")
