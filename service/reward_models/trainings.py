"""Trainings of reward models: one at a time, beside the node, each with a status that is remembered.

    pairs → enough? → work folder → process → shelf ─┬ accepted → active
                                                     └ rejected

A training ends with the node: what it had done is lost, and its record says `interrupted`.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.errors import ColoqError, Conflict
from rewards.config import RewardTrainingConfig
from rewards.preference import PreferencePair, PreferencePairs
from rewards.training.pair_file import write_pairs
from rewards.training.progress import Progress
from rewards.training.report import TrainingReport, read_report
from rewards.training.selection import PairSelection, by_source
from rewards.training.settings import (
    PAIRS_NAME,
    VERSION_NAME,
    Minimum,
    TrainingOrder,
    TrainingSettings,
    write_order,
)
from service.reward_models.activation import ModelActivation
from service.reward_models.ports import TrainingProcess
from service.reward_models.records import TrainingRecords, TrainingState, TrainingStatus
from service.reward_models.shelf import ModelShelf, remove

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What may be chosen for one training; None takes the node's configuration."""

    epochs: int | None = None
    learning_rate: float | None = None
    rank: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class TrainedBackbone:
    """What reward models are trained on."""

    name: str
    """As configured; goes into manifests."""
    model: str
    """Folder or Hugging Face id that it is loaded from."""


class RewardTrainings:
    """Starts, watches and cancels trainings."""

    def __init__(
        self,
        pairs: PreferencePairs,
        shelf: ModelShelf,
        activation: ModelActivation,
        process: TrainingProcess,
        config: RewardTrainingConfig,
        backbone: TrainedBackbone | None,
        on_end: Callable[[TrainingStatus], None] = lambda status: None,
    ) -> None:
        """Without a backbone that a part of the reward judges by nothing is trained. ``on_end`` feeds the metrics."""
        self._pairs, self._shelf, self._activation, self._process = pairs, shelf, activation, process
        self._config, self._backbone, self._on_end = config, backbone, on_end
        self._records = TrainingRecords(shelf.root / "trainings")
        self._running: _Running | None = None

    def open(self) -> None:
        """Tidy up after a node that ended during a training. Raises StoreError."""
        self._records.close_interrupted(_now())
        self._shelf.clear()

    async def close(self) -> None:
        """End the training in progress with the node."""
        if self._running is not None:
            self._running.stop(TrainingState.INTERRUPTED, "the node stopped")
        await self.wait()

    async def wait(self) -> None:
        """Return when no training is running."""
        if self._running is not None:
            await self._running.ended.wait()

    async def start(self, language: str, request: TrainingRequest) -> TrainingStatus:
        """Start to train a language's next version.

        Raises:
            Conflict: a training is running, whose id is ``blocking_id``; or no part judges by models.
            TooFewPairs: people have said too little yet.
            StoreError: pairs could not be read, or the training not be recorded.
        """
        if self._running is not None:
            blocking = self._running.id
            raise Conflict(f"one training of a reward model at a time, and {blocking} is running", blocking)
        if self._backbone is None:
            raise Conflict("no part of the reward judges by models: configure a table [rewards.models.<name>]")
        running = self._running = _Running(f"training_{secrets.token_hex(6)}")
        try:
            pairs = await self._pairs.pairs(language)
            selection = PairSelection.of(pairs)
            selection.require(language, self._minimum)
            running.status = self._begun(running.id, language, request, selection)
            await asyncio.to_thread(self._records.save, running.status)
        except BaseException:
            self._running = None
            running.ended.set()
            raise
        running.task = asyncio.create_task(self._carry_out(running, self._backbone, pairs), name=running.id)
        return running.status

    def status(self, training_id: str) -> TrainingStatus:
        """Raises NotFound."""
        if self._running is not None and self._running.id == training_id and self._running.status is not None:
            return self._running.status
        return self._records.find(training_id)

    def list(self) -> Sequence[TrainingStatus]:
        """Newest first."""
        running = self._running.status if self._running is not None else None
        return [
            running if running is not None and running.id == status.id else status for status in self._records.list()
        ]

    async def cancel(self, training_id: str) -> TrainingStatus:
        """End a training; one that has ended is returned as it is. Raises NotFound."""
        status = self.status(training_id)
        if self._running is not None and self._running.id == training_id:
            running = self._running
            running.stop(TrainingState.CANCELLED, "cancelled by an operator")
            await running.ended.wait()
            return self.status(training_id)
        return status

    @property
    def _minimum(self) -> Minimum:
        return Minimum(self._config.min_pairs, self._config.min_held_out)

    def _begun(
        self, training_id: str, language: str, request: TrainingRequest, selection: PairSelection
    ) -> TrainingStatus:
        return TrainingStatus(
            id=training_id,
            language=language,
            state=TrainingState.RUNNING,
            version=self._shelf.next_version(language),
            settings=self._settings(request),
            num_training=by_source(selection.training),
            num_held_out=by_source(selection.held_out),
            started_at=_now(),
        )

    def _settings(self, request: TrainingRequest) -> TrainingSettings:
        config = self._config
        return TrainingSettings(
            epochs=request.epochs or config.epochs,
            learning_rate=request.learning_rate or config.learning_rate,
            rank=request.rank or config.rank,
            batch_size=config.batch_size,
            max_tokens=config.max_tokens,
            seed=request.seed,
            num_threads=config.num_threads,
            significance=config.significance,
        )

    async def _carry_out(self, running: "_Running", backbone: TrainedBackbone, pairs: Sequence[PreferencePair]) -> None:
        """The boundary that outlives whatever a training raises."""
        assert running.status is not None
        work: Path | None = None
        try:
            work = self._shelf.work_folder(running.status.language, running.id)
            await asyncio.to_thread(self._write_work, work, running.status, backbone, pairs)
            await running.run(self._process, work, self._config)
            state, reason = await self._keep(running.status, work / VERSION_NAME)
        except _Stopped as stopped:
            state, reason = stopped.state, stopped.reason
        except ColoqError as error:
            state, reason = TrainingState.FAILED, str(error)
        except Exception as error:  # the node outlives any training; the reason is recorded
            state, reason = TrainingState.FAILED, f"{type(error).__name__}: {error}"
            log.exception("reward_training_crashed", training=running.id)
        if work is not None:
            await asyncio.to_thread(remove, [work])
        await self._finish(running, state, reason)

    def _write_work(
        self, work: Path, status: TrainingStatus, backbone: TrainedBackbone, pairs: Sequence[PreferencePair]
    ) -> None:
        order = TrainingOrder(
            language=status.language,
            version=status.version,
            backbone=backbone.name,
            model=backbone.model,
            baseline=self._shelf.active_folder(status.language),
            created_at=status.started_at,
            minimum=self._minimum,
            settings=status.settings,
        )
        write_order(work, order)
        write_pairs(work / PAIRS_NAME, pairs)

    async def _keep(self, status: TrainingStatus, written: Path) -> tuple[TrainingState, str]:
        """Put what was trained on the shelf, and activate it when the gate accepted it."""
        report: TrainingReport = await asyncio.to_thread(read_report, written)
        await asyncio.to_thread(self._shelf.put, status.language, status.version, written)
        if not report.verdict.accepted:
            return TrainingState.REJECTED, report.verdict.reason
        try:
            await self._activation.activate(status.language, status.version)
        except ColoqError as error:
            return TrainingState.FAILED, f"version {status.version} was accepted and could not be activated: {error}"
        return TrainingState.ACCEPTED, report.verdict.reason

    async def _finish(self, running: "_Running", state: TrainingState, reason: str) -> None:
        assert running.status is not None
        final = replace(running.status, state=state, reason=reason, ended_at=_now())
        try:
            await asyncio.to_thread(self._records.save, final)
        except ColoqError as error:
            log.error("reward_training_not_recorded", training=final.id, reason=str(error))
        self._running = None
        self._on_end(final)
        log.info("reward_training_ended", training=final.id, language=final.language, state=state.value, reason=reason)
        running.ended.set()


class _Stopped(Exception):
    """The training was ended from outside."""

    def __init__(self, state: TrainingState, reason: str) -> None:
        super().__init__(reason)
        self.state, self.reason = state, reason


class _Running:
    """The training in progress. Only its process can be stopped: what follows is short, and is not torn."""

    def __init__(self, training_id: str) -> None:
        self.id = training_id
        self.status: TrainingStatus | None = None
        self.task: asyncio.Task[None] | None = None
        self.ended = asyncio.Event()
        self._process: asyncio.Task[None] | None = None
        self._stopped: _Stopped | None = None

    def stop(self, state: TrainingState, reason: str) -> None:
        """End the process, and let the training end as ``state``; the first stop counts."""
        self._stopped = self._stopped or _Stopped(state, reason)
        if self._process is not None:
            self._process.cancel()

    async def run(self, process: TrainingProcess, work: Path, config: RewardTrainingConfig) -> None:
        """Carry out the work folder's order. Raises _Stopped, also when it takes too long, and what TrainingProcess.run
        raises."""
        if self._stopped is not None:
            raise self._stopped
        running = process.run(work, num_threads=config.num_threads, on_progress=self._progressed)
        self._process = asyncio.create_task(running, name=f"{self.id} process")
        await asyncio.wait({self._process}, timeout=config.max_duration_s)
        if not self._process.done():
            self.stop(TrainingState.FAILED, self._too_long(config.max_duration_s))
            await asyncio.wait({self._process})
        if self._process.cancelled():
            raise self._why
        self._process.result()

    def _too_long(self, max_duration_s: float) -> str:
        assert self.status is not None
        all_steps = "" if self.status.num_steps is None else f" of {self.status.num_steps}"
        return (
            f"a training must end within rewards.training.max_duration_s ({max_duration_s:g} s), got to step "
            f"{self.status.step}{all_steps}: raise it or rewards.training.num_threads, or train fewer epochs"
        )

    @property
    def _why(self) -> _Stopped:
        return self._stopped or _Stopped(TrainingState.INTERRUPTED, "its task was cancelled")

    def _progressed(self, progress: Progress) -> None:
        assert self.status is not None
        self.status = replace(self.status, step=progress.step, num_steps=progress.num_steps, loss=progress.loss)


def _now() -> datetime:
    return datetime.now(UTC)
