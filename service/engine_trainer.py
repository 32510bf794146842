"""trainer.ports.TrainerPort over the engine process: commands travel as bytes, answers are polled for.

The engine's loop is held only for handing a command over, asking for an answer, or filling an adapter slot.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from agent.errors import EngineDead, EngineError, PublicationFailed, TrainerFailed
from trainer import messages
from trainer.batch import TrainingBatch
from trainer.ports import LearnerSettings, PolicyMetadata, StepResult

_FIRST_POLL_S, _LONGEST_POLL_S, _POLL_GROWTH = 0.002, 0.05, 1.5


class WorkerCalls(Protocol):
    """How the engine process is reached; service.supervised_engine.SupervisedEngine in a node."""

    async def call(self, method: str, *args: Any) -> Any:
        """Call a worker method between two engine steps. Raises EngineError, EngineDead among them."""
        ...


class EngineTrainer:
    """The learner in the engine process."""

    def __init__(self, engine: WorkerCalls) -> None:
        self._engine = engine

    async def begin(self, settings: LearnerSettings, parent: Path | None) -> None:
        await self._carry_out(messages.Begin(settings, str(parent) if parent else None))

    async def step(self, batch: TrainingBatch, version: int) -> StepResult:
        done = await self._carry_out(messages.Step.of(batch, version))
        if done.step is None:
            raise TrainerFailed("the learner answered a step without its result")
        return done.step

    async def logprobs(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        command = messages.Logprobs([list(prompt) for prompt in prompts], [list(reply) for reply in replies])
        return (await self._carry_out(command)).logprobs or []

    async def install(self, version: int) -> None:
        try:
            await self._engine.call("coloq_install", version)
        except EngineDead:
            raise
        except EngineError as error:
            raise PublicationFailed(f"version {version} could not be installed: {error}") from error

    async def remove(self, version: int) -> None:
        await self._engine.call("coloq_remove", version)
        await self._carry_out(messages.Forget(version))

    async def installed(self) -> list[int]:
        """Versions that have a slot in the engine."""
        versions: list[int] = await self._engine.call("coloq_installed")
        return versions

    async def save(self, folder: Path, metadata: PolicyMetadata) -> str:
        return _digest(await self._carry_out(messages.Save(str(folder), metadata)))

    async def load(self, folder: Path, version: int) -> str:
        return _digest(await self._carry_out(messages.Load(str(folder), version)))

    async def _carry_out(self, command: messages.Command) -> messages.Done:
        try:
            ticket = await self._engine.call("coloq_submit", messages.encode(command))
            answer = await self._answer(ticket)
        except EngineDead:
            raise
        except EngineError as error:
            raise TrainerFailed(str(error)) from error
        if isinstance(answer, messages.Failed):
            raise PublicationFailed(answer.reason) if answer.publication else TrainerFailed(answer.reason)
        return answer

    async def _answer(self, ticket: int) -> messages.Answer:
        delay_s = _FIRST_POLL_S
        while True:
            await asyncio.sleep(delay_s)
            data = await self._engine.call("coloq_poll", ticket)
            if data is not None:
                return messages.decode_answer(data)
            delay_s = min(delay_s * _POLL_GROWTH, _LONGEST_POLL_S)


def _digest(done: messages.Done) -> str:
    if done.digest is None:
        raise PublicationFailed("the learner answered without the manifest's digest")
    return done.digest
