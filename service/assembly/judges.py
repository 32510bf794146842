"""Who judges replies: the language contract that answers, and the panel that rewards."""

import asyncio
from dataclasses import dataclass

from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.panel import Panel, build_panel
from service.config import NodeConfig
from service.config_file import check_languages


@dataclass(frozen=True, slots=True)
class Judges:
    """One language contract and one panel, shared by serving and tuning."""

    contract: LanguageContract
    panel: Panel


async def open_judges(config: NodeConfig) -> Judges:
    """Load the detector and make the panel.

    Raises:
        InvalidConfig: a tenant's language that the detector cannot tell, or a reward that cannot be made.
    """
    contract = LanguageContract(await asyncio.to_thread(FastTextDetector))
    check_languages(config, contract.labels)
    return Judges(contract, build_panel(config.rewards, config.tenants, contract))
