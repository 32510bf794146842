"""Work that is done until there is no more, whenever somebody says that there may be some."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context

import structlog

from agent.errors import StoreError
from service.tasks import end

log = structlog.get_logger(__name__)

_RETRY_S = 1.0


class Pump:
    """Runs ``drain`` in the background, one at a time. Poked while it runs, it runs once more.

    A store that is away is asked again with the next poke, or after a second. Any other failure ends the run and is
    logged: the next poke tries again. The work is nobody's: what the poking request has
    bound to its context (its caller, its line of log) is not inherited.
    """

    def __init__(self, name: str, drain: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._drain = drain
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def poke(self) -> None:
        """There may be something to do. Call it on the event loop."""
        self._wanted.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name=self._name, context=Context())

    async def close(self) -> None:
        """Stop, and wait for the stop."""
        if self._task is not None:
            await end([self._task])

    async def _run(self) -> None:
        while self._wanted.is_set():
            self._wanted.clear()
            try:
                await self._drain()
            except StoreError as error:
                log.warning("jobs_wait_for_the_store", task=self._name, reason=str(error))
                with suppress(TimeoutError):
                    async with asyncio.timeout(_RETRY_S):
                        await self._wanted.wait()
                self._wanted.set()
            except Exception as error:  # noqa: BLE001 - the next poke must find a pump that works
                log.error("jobs_pump_broke", task=self._name, error=type(error).__name__)
                return
