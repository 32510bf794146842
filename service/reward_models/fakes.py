"""Fakes of reward models in a node: of `ports.py`, of the desk itself.

They keep what they were asked. Pairs in memory are rewards.fakes.FakePreferencePairs.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from agent.brief import Kind
from agent.errors import Conflict, NotFound
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
from rewards.training.settings import (
    PAIRS_NAME,
    VERSION_NAME,
    Minimum,
    TrainingOrder,
    TrainingSettings,
    read_order,
)
from service.reward_models.ports import OnProgress
from service.reward_models.records import TrainingState, TrainingStatus
from service.reward_models.shelf import LanguageModels, ShelvedModel
from service.reward_models.trainings import TrainingRequest

SETTINGS = TrainingSettings(
    epochs=2, learning_rate=2e-4, rank=16, batch_size=8, max_tokens=1024, seed=0, num_threads=2, significance=0.05
)
_AT = datetime(2026, 1, 1, tzinfo=UTC)


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


@dataclass
class FakeRewardModels:
    """Reward models in memory, as operators see them; a training takes a step each time that it is asked for.

    Versions are what `shelved` makes. After `num_steps` a training has ended as `ends`.
    """

    languages: Sequence[str] = ("de", "en")
    ends: TrainingState = TrainingState.ACCEPTED
    reason: str | None = None
    error: Exception | None = None
    """Raised by `train` and `activate`."""
    num_steps: int = 2
    models: dict[str, LanguageModels] = field(default_factory=dict)
    started: dict[str, TrainingStatus] = field(default_factory=dict)
    requests: list[TrainingRequest] = field(default_factory=list)

    async def list(self) -> Sequence[LanguageModels]:
        """See RewardModelDesk.list."""
        return [await self.of(language) for language in self.languages]

    async def of(self, language: str) -> LanguageModels:
        """See RewardModelDesk.of."""
        if language not in self.languages:
            raise NotFound(f"language must be among {', '.join(self.languages)}, got {language}")
        return self.models.get(language, LanguageModels(language, None, ()))

    async def activate(self, language: str, version: int) -> LanguageModels:
        """See RewardModelDesk.activate."""
        models = await self.of(language)
        if self.error is not None:
            raise self.error
        if version:
            models.find(version)
        self.models[language] = replace(models, active=version or None)
        return self.models[language]

    async def train(self, language: str, request: TrainingRequest) -> TrainingStatus:
        """See RewardModelDesk.train."""
        models = await self.of(language)
        if self.error is not None:
            raise self.error
        running = next((status.id for status in self.started.values() if not status.state.final), None)
        if running is not None:
            raise Conflict(f"one training of a reward model at a time, and {running} is running", running)
        self.requests.append(request)
        status = TrainingStatus(
            id=f"training_{len(self.started) + 1}",
            language=language,
            state=TrainingState.RUNNING,
            version=len(models.versions) + 1,
            settings=SETTINGS,
            num_training={"edit": 90, "rating": 10},
            num_held_out={"edit": 30},
            started_at=_AT,
        )
        self.started[status.id] = status
        return status

    async def training(self, training_id: str) -> TrainingStatus:
        """See RewardModelDesk.training."""
        status = self._find(training_id)
        if status.state.final:
            return status
        status = replace(status, step=status.step + 1, num_steps=self.num_steps, loss=0.5)
        if status.step == self.num_steps:
            status = replace(status, state=self.ends, reason=self.reason, ended_at=_AT)
        self.started[training_id] = status
        return status

    async def trainings(self) -> Sequence[TrainingStatus]:
        """See RewardModelDesk.trainings."""
        return [*reversed(self.started.values())]

    async def cancel(self, training_id: str) -> TrainingStatus:
        """See RewardModelDesk.cancel."""
        status = self._find(training_id)
        if not status.state.final:
            reason = "cancelled by an operator"
            status = replace(status, state=TrainingState.CANCELLED, reason=reason, ended_at=_AT)
            self.started[training_id] = status
        return status

    def _find(self, training_id: str) -> TrainingStatus:
        if training_id not in self.started:
            raise NotFound(f"there is no training {training_id} of a reward model")
        return self.started[training_id]


def shelved(version: int, *, num_right: int = 9, num_wrong: int = 1) -> ShelvedModel:
    """A German version that ranked so many of its held-out prompts right and wrong, and was compared with chance."""
    right, wrong = ScoredReply(1.0, 1.0, 2.0), ScoredReply(0.0, 0.0, 2.0)
    pairs = [
        ScoredPair(
            str(number), Kind.CREATE, PairSource.EDIT, *((right, wrong) if number < num_right else (wrong, right))
        )
        for number in range(num_right + num_wrong)
    ]
    candidate = report_of(pairs)
    verdict = compare(pairs, None, baseline_version=None, significance=SETTINGS.significance)
    counts = {"edit": len(pairs)}
    order = TrainingOrder("de", version, "tiny", "tiny", None, _AT, Minimum(1, 1), SETTINGS)
    report = TrainingReport(SETTINGS, {"edit": 100}, counts, 0, (0.5,), candidate, None, verdict)
    return ShelvedModel(_manifest(order, 100, candidate.accuracy.value), report)
