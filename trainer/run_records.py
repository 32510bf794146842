"""What is kept of the run that goes on, and read back of one that was interrupted."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from agent.errors import Conflict, EngineDead, TuningError
from trainer.checkpoint import Checkpoints, Position, check_same, settings_of
from trainer.claim_log import ClaimLog
from trainer.config import TuningConfig
from trainer.plan import RunPlan
from trainer.promotion import Resumption, Standing
from trainer.records import RunState, RunStatus

log = structlog.get_logger(__name__)


class RunRecords:
    """Checkpoints and draws of one run at a time."""

    def __init__(self, checkpoints: Checkpoints, claims: ClaimLog, base_model: str) -> None:
        """``claims`` is the journal that the tuning loop draws from."""
        self._checkpoints, self._claims = checkpoints, claims
        self._base_model = base_model

    async def begin(self, run_id: str) -> None:
        """A new run begins. Raises StoreError."""
        await self._claims.begin(self._checkpoints.claims_path(run_id))

    def save(
        self,
        status: RunStatus,
        plan: RunPlan,
        standing: Standing,
        write_state: Callable[[Path], Awaitable[None]],
    ) -> Awaitable[None]:
        """Take the run's position now; awaiting the result writes a checkpoint of it, whatever has been drawn since.

        A checkpoint that fails is logged, and the run goes on: the one before is still there.

        Raises:
            EngineDead: the engine process is gone.
        """
        position = Position(
            run=status,
            standing=standing,
            num_draws=self._claims.num_draws,
            base_model=self._base_model,
            settings=settings_of(plan),
            languages=plan.languages,
        )
        return self._write(position, write_state)

    async def resume(
        self, status: RunStatus, config: TuningConfig, languages: Sequence[str]
    ) -> tuple[RunStatus, RunPlan, Resumption | None]:
        """An interrupted run as it stood at its newest whole checkpoint, and what to go on from; None is its beginning.

        Raises:
            Conflict: it belongs to another base model or other settings, or cannot go on.
            StoreError: its draws cannot be read, or the journal could not be reached.
        """
        checkpoint = await self._checkpoints.newest(status.id)
        if checkpoint is None:
            if status.published:
                raise Conflict(f"{status.id} has published, and left no checkpoint to go on from: start a new run")
            await self._claims.resume(self._checkpoints.claims_path(status.id), 0)
            return _running(status, 0), RunPlan.of(status.request, config, tuple(languages)), None
        position = checkpoint.position
        plan = RunPlan.of(status.request, config, position.languages, languages)
        check_same(position, plan, self._base_model)
        claimed = await self._claims.resume(self._checkpoints.claims_path(status.id), position.num_draws)
        running = _running(replace(status, steps=position.run.steps), position.step)
        resumption = Resumption(
            position.step,
            position.standing,
            checkpoint.folder,
            published=frozenset(status.published),
            steps=running.steps,
            claimed=claimed,
        )
        return running, plan, resumption

    def close(self) -> None:
        """The run has ended: draws are recorded no more."""
        self._claims.end()

    async def discard(self, status: RunStatus) -> None:
        """Delete what is left of a run that has ended, unless it can be resumed."""
        if status.state is not RunState.INTERRUPTED:
            await asyncio.to_thread(self._checkpoints.discard, status.id)

    async def _write(self, position: Position, write_state: Callable[[Path], Awaitable[None]]) -> None:
        try:
            await self._checkpoints.save(position, write_state)
        except EngineDead:
            raise
        except TuningError as error:
            log.error("checkpoint_failed", run=position.run.id, step=position.step, reason=str(error))


def _running(status: RunStatus, num_done: int) -> RunStatus:
    return replace(
        status,
        state=RunState.RUNNING,
        steps=status.steps[:num_done],
        ended_at=None,
        reason=None,
        resumed_after=(*status.resumed_after, num_done),
    )
