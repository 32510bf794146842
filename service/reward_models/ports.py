"""What trainings of reward models need of the rest of the node, as Protocols. The fakes are in `fakes.py`."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rewards.training.progress import Progress

OnProgress = Callable[[Progress], None]


class TrainingProcess(Protocol):
    """Carries out the order of a work folder (rewards.training.program)."""

    async def run(self, work: Path, *, num_threads: int, on_progress: OnProgress) -> None:
        """Return when the version stands in the work folder; when cancelled, only once nothing writes there any more.

        Raises:
            TrainerFailed: the training failed.
        """
        ...


class LoadedModels(Protocol):
    """The reward models that judge."""

    async def activate(self, language: str, version: int) -> None:
        """Judge this language by a version of its shelf from now on; by none when it is 0.

        Raises:
            ColoqError: the version cannot be loaded; the one before still judges.
        """
        ...
