"""Stops work that nobody waits for: a caller that hangs up cancels its generation.

FastAPI does not do this by itself. Once the body is read, the only message that `receive` still brings is
`http.disconnect`; the engine aborts a generation when its task is cancelled.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive

from agent.errors import ColoqError

T = TypeVar("T")


class ClientGone(ColoqError):
    """The caller closed the connection before the reply was ready."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled, and waited for, when the caller hangs up or this call is cancelled.

    Raises:
        ClientGone: the caller hung up first.
    """
    task = asyncio.create_task(work)
    watcher = asyncio.create_task(disconnection(receive))
    try:
        await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone("the caller closed the connection")
        return task.result()
    finally:
        task.cancel()
        watcher.cancel()
        await asyncio.gather(task, watcher, return_exceptions=True)


async def body_of(request: Request) -> bytes:
    """The whole body.

    Raises:
        HTTPException: 415, it is compressed.
        ClientGone: the caller hung up within it.
    """
    encoding = request.headers.get("content-encoding", "").strip()
    if encoding.lower() not in ("", "identity"):
        raise HTTPException(415, f"send the body as it is, without Content-Encoding, got {encoding[:40]!r}")
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise ClientGone("the caller closed the connection before its body was there") from error


async def disconnection(receive: Receive) -> None:
    """Return when the caller hangs up; the request's body has been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
