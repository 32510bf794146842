"""Commands to the learner's thread in the engine process: they travel as bytes, answers are polled for.

The engine's loop is held only for handing a command over and for asking whether it is done.
"""

import asyncio
import time
from typing import Any, Protocol

from agent.errors import EngineDead, EngineError, PublicationFailed, TrainerFailed
from trainer import messages

_PATIENCE, _LONGEST_PATIENCE_S = 0.9, 0.5
"""Share of the time that a command is expected to take after which its answer is first asked for. A step that had to
make way for live requests says little of the next."""
_LATENESS, _SHORTEST_POLL_S, _LONGEST_POLL_S = 0.03, 0.002, 0.1
"""An answer is asked for again after this share of the time that it has been waited for."""


class WorkerCalls(Protocol):
    """How the engine process is reached; service.supervised_engine.SupervisedEngine in a node."""

    async def call(self, method: str, *args: Any) -> Any:
        """Call a worker method between two engine steps. Raises EngineError, EngineDead among them."""
        ...


async def carry_out(engine: WorkerCalls, command: messages.Command, *, expected_s: float = 0.0) -> messages.Done:
    """Have the learner carry a command out.

    Raises:
        TrainerFailed: the command raised, or there is no learner.
        PublicationFailed: a policy could not be written or read.
        TimeoutError: the command had a time, and it was not enough.
        EngineDead: the engine process is gone.
    """
    try:
        ticket = await engine.call("coloq_submit", messages.encode(command))
        answer = await _answer(engine, ticket, expected_s)
    except EngineDead:
        raise
    except EngineError as error:
        raise TrainerFailed(str(error)) from error
    if isinstance(answer, messages.Failed):
        if answer.late:
            raise TimeoutError(answer.reason)
        raise PublicationFailed(answer.reason) if answer.publication else TrainerFailed(answer.reason)
    return answer


async def _answer(engine: WorkerCalls, ticket: int, expected_s: float) -> messages.Answer:
    began_s = time.monotonic()
    await asyncio.sleep(min(_PATIENCE * expected_s, _LONGEST_PATIENCE_S))
    while True:
        data = await engine.call("coloq_poll", ticket)
        if data is not None:
            return messages.decode_answer(data)
        waited_s = time.monotonic() - began_s
        await asyncio.sleep(min(max(_LATENESS * waited_s, _SHORTEST_POLL_S), _LONGEST_POLL_S))
