"""Server-sent events of work that goes on: what is new, coalesced, with a sign of life while nothing is.

    work ──listener──► Feed ──batches──► events ──► EventStream (a response)
     └──────── result or error ──────────► events

A caller that hangs up cancels the work. Text that comes faster than the caller reads is kept in the feed: it is bounded
by the work's own limits.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Generic, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

COALESCE_S = 0.03
"""Events are at least so far apart, but for the last: one for each token would cost more than the token."""
HEARTBEAT_S = 10.0
"""Proxies cut connections that are silent for longer."""
HEARTBEAT = b": still working\n\n"
MEDIA_TYPE = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""No cache, and no proxy that collects the events of a second."""

T = TypeVar("T")


def event(data: str, name: str | None = None) -> bytes:
    """One event. ``data`` must be one line, such as JSON."""
    return f"event: {name}\ndata: {data}\n\n".encode() if name is not None else f"data: {data}\n\n".encode()


def documented_stream(description: str, *names: str) -> dict[str, Any]:
    """The `content` of an OpenAPI response that may be a stream: the schema is that of one event.

    Args:
        names: of the events; without any, events have no name.
    """
    properties: dict[str, Any] = {"data": {"type": "string", "description": description}}
    if names:
        properties["event"] = {"type": "string", "enum": list(names)}
    return {MEDIA_TYPE: {"schema": {"type": "object", "properties": properties, "required": list(properties)}}}


class Feed(Generic[T]):
    """What work has to tell, taken in batches. ``put`` is called on the event loop."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._changed = asyncio.Event()

    def put(self, item: T) -> None:
        """One more item."""
        self._items.append(item)
        self._changed.set()

    async def opened(self, work: "asyncio.Task[Any]") -> None:
        """Return when there is something to send, or it has taken long enough for a sign of life.

        Raises:
            Exception: the work failed before it told anything: a response can still say so by its status.
        """
        await self._wait(work)
        if work.done() and not self._items:
            work.result()

    async def batches(self, work: "asyncio.Task[Any]", *, silence_s: float) -> AsyncIterator[list[T]]:
        """What has come since the last batch, until the work is done; an empty list is a sign of life.

        Raises:
            TimeoutError: nothing came for ``silence_s``.
        """
        clock = asyncio.get_running_loop().time
        heard_s = clock()
        while True:
            await self._wait(work)
            if batch := self._take():
                heard_s = clock()
                yield batch
                await asyncio.wait({work}, timeout=COALESCE_S)
            elif work.done():
                return
            elif clock() - heard_s >= silence_s:
                raise TimeoutError
            else:
                yield []

    def _take(self) -> list[T]:
        items, self._items = self._items, []
        self._changed.clear()
        return items

    async def _wait(self, work: "asyncio.Task[Any]") -> None:
        """Return when there are items, the work is done, or a sign of life is due."""
        work.add_done_callback(self._note_end)
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                while not (self._items or work.done()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
        finally:
            work.remove_done_callback(self._note_end)

    def _note_end(self, _: "asyncio.Task[Any]") -> None:
        self._changed.set()


class EventStream(StreamingResponse):
    """A response that owns the work it tells of: whatever ends the response ends the work."""

    def __init__(self, events: AsyncIterator[bytes], work: "asyncio.Task[Any]", headers: dict[str, str]) -> None:
        super().__init__(events, media_type=MEDIA_TYPE, headers=HEADERS | headers)
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await cancelled(self._work)


async def cancelled(work: "asyncio.Task[Any]") -> None:
    """Cancel work and wait for its end."""
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
