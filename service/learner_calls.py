"""Commands to the learner's thread in the engine process: they travel as bytes, and answers are fetched when they are
there (trainer.answer_line).

The engine's loop is held only for handing a command over and for fetching its answer.
"""

from typing import Any, Protocol

from agent.errors import EngineDead, EngineError, PublicationFailed, TrainerFailed
from trainer import messages

_WORD_S = 0.5
"""An answer of which no word has come is asked for after this long."""


class WorkerCalls(Protocol):
    """How the engine process is reached; service.supervised_engine.SupervisedEngine in a node."""

    async def call(self, method: str, *args: Any) -> Any:
        """Call a worker method between two engine steps. Raises EngineError, EngineDead among them."""
        ...

    async def answered(self, ticket: int, within_s: float) -> None:
        """Return when the learner's answer is there, or after ``within_s``. Raises EngineDead."""
        ...


async def carry_out(engine: WorkerCalls, command: messages.Command) -> messages.Done:
    """Have the learner carry a command out.

    Raises:
        TrainerFailed: the command raised, or there is no learner.
        PublicationFailed: a policy could not be written or read.
        TimeoutError: the command had a time, and it was not enough.
        EngineDead: the engine process is gone.
    """
    try:
        ticket = await engine.call("coloq_submit", messages.encode(command))
        answer = await _answer(engine, ticket)
    except EngineDead:
        raise
    except EngineError as error:
        raise TrainerFailed(str(error)) from error
    if isinstance(answer, messages.Failed):
        if answer.late:
            raise TimeoutError(answer.reason)
        raise PublicationFailed(answer.reason) if answer.publication else TrainerFailed(answer.reason)
    return answer


async def _answer(engine: WorkerCalls, ticket: int) -> messages.Answer:
    while True:
        await engine.answered(ticket, _WORD_S)
        data = await engine.call("coloq_poll", ticket)
        if data is not None:
            return messages.decode_answer(data)
