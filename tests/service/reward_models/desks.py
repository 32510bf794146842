"""A desk of fakes over a real shelf."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rewards.config import RewardTrainingConfig
from rewards.fakes import FakePreferencePairs
from rewards.preference import PreferencePair
from service.reward_models.activation import ModelActivation
from service.reward_models.desk import RewardModelDesk
from service.reward_models.fakes import FakeLoadedModels, FakeTrainingProcess
from service.reward_models.ports import TrainingProcess
from service.reward_models.records import TrainingStatus
from service.reward_models.shelf import LanguageModels, ModelShelf
from service.reward_models.trainings import RewardTrainings, TrainedBackbone, TrainingRequest
from tests.planted_pairs import planted_pairs

CONFIG = RewardTrainingConfig(min_pairs=8, min_held_out=8, num_threads=1)


@dataclass
class Rig:
    """The parts of a desk."""

    root: Path
    pairs: Sequence[PreferencePair] = field(default_factory=lambda: planted_pairs(8, 8))
    process: TrainingProcess = field(default_factory=FakeTrainingProcess)
    model: str | None = "tiny"
    config: RewardTrainingConfig = CONFIG
    loaded: FakeLoadedModels = field(default_factory=FakeLoadedModels)
    ended: list[TrainingStatus] = field(default_factory=list)
    active: list[LanguageModels] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.source = FakePreferencePairs(self.pairs)
        self.shelf = ModelShelf(self.root / "rewards")
        self.activation = ModelActivation(self.shelf, self.loaded, self.active.append)
        self.trainings = RewardTrainings(
            self.source,
            self.shelf,
            self.activation,
            self.process,
            self.config,
            TrainedBackbone("tiny", self.model) if self.model is not None else None,
            self.ended.append,
        )
        self.desk = RewardModelDesk(self.shelf, self.activation, self.trainings, lambda: ["de", "pl"])

    async def train(self, request: TrainingRequest | None = None) -> TrainingStatus:
        """Train German to its end."""
        started = await self.desk.train("de", request or TrainingRequest())
        await self.trainings.wait()
        return await self.desk.training(started.id)
