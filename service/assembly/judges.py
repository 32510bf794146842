"""Who judges replies: the language contract that answers, and the panel that rewards."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.panel import Panel, build_panel
from rewards.score import SharedRewardModel
from service.config import NodeConfig
from service.config_file import check_languages
from service.scoring_workers import ScoringWorkers, num_workers


@dataclass(frozen=True, slots=True)
class Judges:
    """One language contract and one panel, shared by serving and tuning."""

    contract: LanguageContract
    panel: Panel


@asynccontextmanager
async def open_judges(config: NodeConfig, reward_models: Mapping[str, SharedRewardModel]) -> AsyncIterator[Judges]:
    """Load the detector and make the panel; ``reward_models`` are those of ``rewards.models``. Its worker processes end
    with the block.

    Raises:
        InvalidConfig: a tenant's language that the detector cannot tell, or a reward that cannot be made.
    """
    contract = LanguageContract(await asyncio.to_thread(FastTextDetector))
    check_languages(config, contract.labels)
    panel = build_panel(config.rewards, config.tenants, contract, reward_models)
    count = num_workers(config.rewards.workers)
    if not count:
        yield Judges(contract, panel)
        return
    workers = ScoringWorkers(count, {name: config.rewards.extra[name] for name in panel.stateless})
    panel.delegate(workers)
    try:
        yield Judges(contract, panel)
    finally:
        workers.close()
