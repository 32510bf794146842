"""Who judges replies: the language contract that answers, and the panel that rewards."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.panel import Panel, build_panel
from rewards.score import SharedRewardModel
from service.config import NodeConfig
from service.config_file import check_languages


@dataclass(frozen=True, slots=True)
class Judges:
    """One language contract and one panel, shared by serving and tuning."""

    contract: LanguageContract
    panel: Panel


async def open_judges(config: NodeConfig, reward_models: Mapping[str, SharedRewardModel]) -> Judges:
    """Load the detector and make the panel; ``reward_models`` are those of ``rewards.models``.

    Raises:
        InvalidConfig: a tenant's language that the detector cannot tell, or a reward that cannot be made.
    """
    contract = LanguageContract(await asyncio.to_thread(FastTextDetector))
    check_languages(config, contract.labels)
    return Judges(contract, build_panel(config.rewards, config.tenants, contract, reward_models))
