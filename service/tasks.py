"""Tasks that run beside the rest of the node."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

_CANCEL_S = 5.0
_RETRY_S = 1.0


async def end(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel tasks until each has ended, whatever with. Once is not enough: `asyncio.wait_for` of Python 3.11, which
    libraries use, swallows a cancellation that comes together with its result."""
    all_tasks = list(tasks)
    pending = {task for task in all_tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_RETRY_S)
    for task in all_tasks:
        if not task.cancelled():
            task.exception()  # asked for, so that asyncio does not complain that nobody did


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None], *, name: str) -> AsyncIterator["asyncio.Task[None]"]:
    """Run ``work`` for the length of the block, then cancel it and wait for its end, but not for ever: a library may
    swallow the cancellation."""
    task = asyncio.create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_S)
