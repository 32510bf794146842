"""Fakes of `service.reward_models.ports`, and pairs in memory. They keep what they were asked."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rewards.models.calibration import Calibration
from rewards.models.manifest import ADAPTER_CONFIG, WEIGHTS, RewardManifest, write_manifest
from rewards.preference import PairSource, PreferencePair
from rewards.training.comparison import compare
from rewards.training.held_out import report_of
from rewards.training.pair_file import read_pairs
from rewards.training.progress import Progress
from rewards.training.report import TrainingReport, write_report
from rewards.training.scored import ScoredPair, ScoredReply
from rewards.training.selection import PairSelection, by_source
from rewards.training.settings import PAIRS_NAME, VERSION_NAME, TrainingOrder, read_order
from service.reward_models.ports import OnProgress


@dataclass
class MemoryPairs:
    """`PreferencePairs` of a list."""

    by_language: Mapping[str, Sequence[PreferencePair]] = field(default_factory=dict)
    error: Exception | None = None

    async def pairs(self, language: str) -> list[PreferencePair]:
        """See PreferencePairs.pairs."""
        if self.error is not None:
            raise self.error
        return list(self.by_language.get(language, ()))


@dataclass
class FakeLoadedModels:
    """`LoadedModels` that remembers what it was told; raises `error` while it is set."""

    activated: list[tuple[str, int]] = field(default_factory=list)
    error: Exception | None = None

    async def activate(self, language: str, version: int) -> None:
        """See LoadedModels.activate."""
        if self.error is not None:
            raise self.error
        self.activated.append((language, version))


@dataclass
class FakeTrainingProcess:
    """`TrainingProcess` without a model: takes three steps, then writes a version that ranks pairs as it is told to.

    The version is written as the real process writes it, weights apart.
    """

    ranks_right: Callable[[PreferencePair], bool] = lambda pair: True
    baseline_ranks_right: Callable[[PreferencePair], bool] = lambda pair: False
    """How the active version ranks pairs, where there is one."""
    error: Exception | None = None
    """Raised after the steps."""
    holds: asyncio.Event | None = None
    """Waited for after the steps, while it is there."""
    stepped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after the steps."""
    orders: list[TrainingOrder] = field(default_factory=list)
    num_steps: int = 3

    async def run(self, work: Path, *, num_threads: int, on_progress: OnProgress) -> None:
        """See TrainingProcess.run."""
        order = read_order(work)
        self.orders.append(order)
        for step in range(1, self.num_steps + 1):
            await asyncio.sleep(0)
            on_progress(Progress(step, self.num_steps, 1 / (1 + step)))
        (work / VERSION_NAME).mkdir()
        self.stepped.set()
        if self.holds is not None:
            await self.holds.wait()
        if self.error is not None:
            raise self.error
        self._write(work / VERSION_NAME, order, PairSelection.of(read_pairs(work / PAIRS_NAME)))

    def _write(self, folder: Path, order: TrainingOrder, selection: PairSelection) -> None:
        candidate = _scored(selection.held_out, self.ranks_right)
        baseline = _scored(selection.held_out, self.baseline_ranks_right) if order.baseline is not None else None
        version = int(order.baseline.name[1:]) if order.baseline is not None else None
        significance = order.settings.significance
        report = TrainingReport(
            settings=order.settings,
            num_training=by_source(selection.training),
            num_held_out=by_source(selection.held_out),
            num_too_long=0,
            losses=(0.5, 1 / 3, 0.25),
            candidate=report_of(candidate),
            baseline=report_of(baseline) if baseline is not None else None,
            verdict=compare(candidate, baseline, baseline_version=version, significance=significance),
        )
        (folder / WEIGHTS).write_bytes(b"weights")
        (folder / ADAPTER_CONFIG).write_text("{}")
        write_report(folder, report)
        accuracy = report.candidate.accuracy.value
        write_manifest(folder, _manifest(order, len(selection.training), accuracy))


def _manifest(order: TrainingOrder, num_pairs: int, accuracy: float) -> RewardManifest:
    return RewardManifest(
        version=order.version,
        language=order.language,
        backbone=order.backbone,
        created_at=order.created_at.isoformat(),
        num_pairs=num_pairs,
        held_out_accuracy=accuracy,
        calibration=Calibration(),
        files={},
    )


def _scored(pairs: Sequence[PreferencePair], ranks_right: Callable[[PreferencePair], bool]) -> list[ScoredPair]:
    better, worse = ScoredReply(1.0, 1.0, 2.0), ScoredReply(0.0, 0.0, 2.0)
    return [
        ScoredPair(
            pair.brief.instructions,
            pair.brief.kind,
            PairSource(pair.source),
            *((better, worse) if ranks_right(pair) else (worse, better)),
        )
        for pair in pairs
    ]
