"""trainer.ports.TrainerPort over the engine process: commands travel as bytes (service.learner_calls).

The engine's loop is held only for handing a command over, fetching an answer, filling an adapter slot, or changing
the live weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import EngineDead, EngineError, PublicationFailed, TrainerFailed
from service.learner_calls import WorkerCalls, carry_out
from trainer import messages
from trainer.batch import TrainingBatch
from trainer.ports import LearnerSettings, PolicyMetadata, StepResult

_SWITCHED = {
    "coloq_install": "installed",
    "coloq_publish_live": "published",
    "coloq_restore_live": "restored",
}


class EngineTrainer:
    """The learner in the engine process."""

    def __init__(self, engine: WorkerCalls) -> None:
        self._engine = engine

    async def prepare(
        self, settings: LearnerSettings, *, max_length: int, reply_tokens: int, temperature: float
    ) -> None:
        await self._carry_out(messages.Prepare(settings, max_length, reply_tokens, temperature))

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
        await self._switch("coloq_install", version)

    async def publish_live(self, version: int) -> float:
        return float(await self._switch("coloq_publish_live", version))

    async def restore_live(self, version: int) -> None:
        await self._switch("coloq_restore_live", version)

    async def keep_live(self, version: int) -> None:
        await self._carry_out(messages.Keep(version))

    async def remove(self, version: int) -> None:
        await self._engine.call("coloq_remove", version)
        await self.forget(version)

    async def forget(self, version: int) -> None:
        await self._carry_out(messages.Forget(version))

    async def installed(self) -> list[int]:
        """Versions that have a slot in the engine."""
        versions: list[int] = await self._engine.call("coloq_installed")
        return versions

    async def save(self, folder: Path, metadata: PolicyMetadata) -> str:
        return _digest(await self._carry_out(messages.Save(str(folder), metadata)))

    async def verify(self, folder: Path) -> str:
        return _digest(await self._carry_out(messages.Verify(str(folder))))

    async def load(self, folder: Path, version: int) -> str:
        return _digest(await self._carry_out(messages.Load(str(folder), version)))

    async def checkpoint(self, folder: Path) -> None:
        await self._carry_out(messages.Checkpoint(str(folder)))

    async def resume(self, settings: LearnerSettings, folder: Path, version: int) -> None:
        await self._carry_out(messages.Resume(settings, str(folder), version))

    async def load_base(self) -> None:
        await self._carry_out(messages.LoadBase())

    async def _switch(self, method: str, version: int) -> Any:
        """Call a worker method that changes what the engine serves, between two engine steps."""
        try:
            return await self._engine.call(method, version)
        except EngineDead:
            raise
        except EngineError as error:
            raise PublicationFailed(f"version {version} could not be {_SWITCHED[method]}: {error}") from error

    async def _carry_out(self, command: messages.Command) -> messages.Done:
        return await carry_out(self._engine, command)


def _digest(done: messages.Done) -> str:
    if done.digest is None:
        raise PublicationFailed("the learner answered without the manifest's digest")
    return done.digest
