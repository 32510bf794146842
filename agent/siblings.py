"""Sibling completions: several samples of one prompt, each a request of its own.

The engine's own ``n`` does the same behind one request. Requests of their own each count in the slots, have their own
policy version, and are run again alone when the engine process dies.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import TypeVar

from agent.completion import Completion
from agent.ports import Engine, GenerateRequest, Listener

Result = TypeVar("Result")


async def siblings(
    engine: Engine, request: GenerateRequest, num_samples: int, listeners: Sequence[Listener] = ()
) -> tuple[Completion, ...]:
    """Sample a prompt ``num_samples`` times at once, in order; a single sample is the request itself.

    Args:
        listeners: of the first samples, in order; those that have none are heard by nobody.

    Raises:
        EngineError: the first that a sibling raised; the others are then cancelled.
    """
    asked = [request] if num_samples == 1 else [sibling(request, index) for index in range(num_samples)]
    for index, listener in enumerate(listeners):
        asked[index] = replace(asked[index], listener=listener)
    if num_samples == 1:
        return (await engine.generate(asked[0]),)
    return tuple(await together([engine.generate(item) for item in asked]))


def sibling(request: GenerateRequest, index: int) -> GenerateRequest:
    """The same prompt with the request id ``<id>-<index>`` and, where it has a seed, that plus the index; heard by
    nobody."""
    seed = request.sampling.seed
    sampling = replace(request.sampling, seed=None if seed is None else seed + index)
    return replace(request, request_id=f"{request.request_id}-{index}", sampling=sampling, listener=None)


async def together(work: Sequence[Coroutine[object, object, Result]]) -> list[Result]:
    """Await all at once, results in order. The first error is raised as itself, and the rest is cancelled."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(item) for item in work]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in running]
