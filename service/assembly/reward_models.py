"""Reward models of a node: trained from what people say of replies, kept in the data folder, loaded by the judges."""

import asyncio

from agent.errors import InvalidConfig, ModelError
from rewards.preference import PreferencePairs
from service import models
from service.assembly.ground import Ground
from service.config import NodeConfig
from service.engine_rewards import FOLDER
from service.reward_models.activation import ModelActivation
from service.reward_models.desk import RewardModelDesk
from service.reward_models.ports import LoadedModels
from service.reward_models.process import ChildTraining
from service.reward_models.records import TrainingStatus
from service.reward_models.shelf import LanguageModels, ModelShelf
from service.reward_models.trainings import RewardTrainings, TrainedBackbone
from service.telemetry import Metrics
from service.tenants import Tenants


async def open_reward_models(
    ground: Ground, served: str, tenants: Tenants, pairs: PreferencePairs, loaded: LoadedModels
) -> RewardModelDesk:
    """Tidy up after the last process, and tell the metrics which versions judge. The caller closes the desk.

    Args:
        served: the folder or Hugging Face id behind ``engine.model``.

    Raises:
        InvalidConfig: `rewards.training.backbone` is no model of `rewards.models`, or is not there.
        ModelError: the versions in the data folder cannot be read.
        StoreError: the records of trainings cannot be read or written.
    """
    config, metrics = ground.config, ground.metrics
    backbone = await asyncio.to_thread(trained_backbone, config, served)
    shelf = ModelShelf(ground.data_dir / FOLDER)
    activation = ModelActivation(shelf, loaded, lambda active: _active(metrics, active))
    trainings = RewardTrainings(
        pairs,
        shelf,
        activation,
        ChildTraining(),
        config.rewards.training,
        backbone,
        lambda ended: _ended(metrics, ended),
    )
    await asyncio.to_thread(trainings.open)
    activation.tell()
    return RewardModelDesk(shelf, activation, trainings, lambda: tenants.languages)


def trained_backbone(config: NodeConfig, served: str) -> TrainedBackbone | None:
    """What reward models are trained on: `rewards.training.backbone`; unset, the served model when a part judges by it,
    or else the first part's model. None when no part judges by models.

    Raises:
        InvalidConfig: it is the model of no part, or there is no such model.
    """
    judging = [name for part in config.rewards.models.values() for name in part.names(config.engine.model)]
    wanted = config.rewards.training.backbone
    if wanted is not None and wanted not in judging:
        among = ", ".join(dict.fromkeys(judging)) or "none"
        raise InvalidConfig(
            "rewards.training.backbone", f"must be the model of a part of rewards.models ({among}), got {wanted!r}"
        )
    if not judging:
        return None
    name = wanted or (config.engine.model if config.engine.model in judging else judging[0])
    if name == config.engine.model:
        return TrainedBackbone(name, served)
    try:
        return TrainedBackbone(name, models.resolve(name))
    except ModelError as error:
        raise InvalidConfig("rewards.training.backbone", str(error).removeprefix("engine.model: ")) from error


def _active(metrics: Metrics, active: LanguageModels) -> None:
    metrics.set_reward_model(active.language, active.active, active.active_accuracy)


def _ended(metrics: Metrics, ended: TrainingStatus) -> None:
    metrics.reward_training_ended(ended.state.value)
