"""Trainings of reward models as operators see them, and the folder that remembers them.

<data_dir>/rewards/trainings/<id>.json      one training, rewritten when it ends
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from agent.errors import NotFound, StoreError
from agent.files import replace_durably
from rewards.training.settings import TrainingSettings
from service.stored_record import RecordCodec

MAX_KEPT = 200
"""Older trainings are forgotten; the versions that they made stay."""


class TrainingState(StrEnum):
    """How a training stands."""

    RUNNING = "running"
    ACCEPTED = "accepted"
    """It made a version that beat the one before, and that is now active."""
    REJECTED = "rejected"
    """It made a version that did not, which is kept and never activated."""
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    """The node stopped."""

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self is not TrainingState.RUNNING


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """One training."""

    id: str
    language: str
    state: TrainingState
    version: int
    """The version that it makes; on the shelf once it was accepted or rejected."""
    settings: TrainingSettings
    num_training: Mapping[str, int]
    """Pairs to train on, by source."""
    num_held_out: Mapping[str, int]
    """Pairs to be measured on, by source."""
    started_at: datetime
    ended_at: datetime | None = None
    step: int = 0
    num_steps: int | None = None
    """Known from the first step on."""
    loss: float | None = None
    """Of the last step."""
    reason: str | None = None
    """Why it was accepted or rejected, or what went wrong."""


class TrainingRecords:
    """Statuses on disk. Every method raises StoreError when the folder cannot be used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._codec = RecordCodec(TrainingStatus)

    def save(self, status: TrainingStatus) -> None:
        """Remember a training; the oldest beyond `MAX_KEPT` are forgotten."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_durably(self._path(status.id), self._codec.encode(status))
        except OSError as error:
            raise StoreError(f"the training {status.id} cannot be recorded: {error.strerror}") from error
        for forgotten in self.list()[MAX_KEPT:]:
            self._path(forgotten.id).unlink(missing_ok=True)

    def find(self, training_id: str) -> TrainingStatus:
        """Raises NotFound."""
        for status in self.list():
            if status.id == training_id:
                return status
        raise NotFound(f"there is no training {training_id} of a reward model")

    def list(self) -> Sequence[TrainingStatus]:
        """Newest first."""
        try:
            statuses = [self._codec.decode(path.read_bytes()) for path in self._folder.glob("*.json")]
        except OSError as error:
            raise StoreError(f"trainings cannot be read: {error.strerror}") from error
        return sorted(statuses, key=lambda status: (status.started_at, status.id), reverse=True)

    def close_interrupted(self, now: datetime) -> None:
        """End what a node that is gone had left running."""
        for status in self.list():
            if not status.state.final:
                reason = "the node stopped during the training"
                self.save(replace(status, state=TrainingState.INTERRUPTED, ended_at=now, reason=reason))

    def _path(self, training_id: str) -> Path:
        return self._folder / f"{training_id}.json"
