"""Sibling completions: several samples of one prompt, each a request of its own.

The engine's own ``n`` does the same behind one request. Requests of their own each count in the slots, have their own
policy version, and are run again alone when the engine process dies.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

from agent.completion import Completion
from agent.ports import Engine, GenerateRequest

Result = TypeVar("Result")


async def siblings(engine: Engine, request: GenerateRequest, num_samples: int) -> tuple[Completion, ...]:
    """Sample a prompt ``num_samples`` times at once, in order; a single sample is the request itself.

    Sibling i has the request id ``<id>-<i>`` and, where the request has a seed, that seed plus i.

    Raises:
        EngineError: the first that a sibling raised; the others are then cancelled.
    """
    if num_samples == 1:
        return (await engine.generate(request),)
    return tuple(await together([engine.generate(_sibling(request, index)) for index in range(num_samples)]))


def _sibling(request: GenerateRequest, index: int) -> GenerateRequest:
    seed = request.sampling.seed
    sampling = replace(request.sampling, seed=None if seed is None else seed + index)
    return replace(request, request_id=f"{request.request_id}-{index}", sampling=sampling)


async def together(work: Sequence[Coroutine[object, object, Result]]) -> list[Result]:
    """Await all at once, results in order. The first error is raised as itself, and the rest is cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(item) for item in work]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in running]
