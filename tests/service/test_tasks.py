"""Tasks that are ended, though they may not want to."""

import asyncio

import pytest

from service import tasks


async def test_a_task_that_swallows_its_cancellation_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first cancellation is lost, the second one ends it; a task that is done already is left alone."""
    monkeypatch.setattr(tasks, "_RETRY_S", 0.01)
    num_cancelled = 0

    async def stubborn() -> None:
        nonlocal num_cancelled
        while num_cancelled < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                num_cancelled += 1
        raise asyncio.CancelledError

    async def broken() -> None:
        raise ValueError("broken")

    work, failed = asyncio.create_task(stubborn()), asyncio.create_task(broken())
    await asyncio.sleep(0)
    await asyncio.wait_for(tasks.end([work, failed]), 5)
    assert (work.cancelled(), num_cancelled) == (True, 2)
    assert isinstance(failed.exception(), ValueError)
