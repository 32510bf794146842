"""Gives off-the-shelf scorers their scale, once for each language, from replies that the node has served.

    no run is active ─► languages without a calibration ─► held-out episodes ─► enough of them: fit, keep, judge by it

Until then such a scorer judges by the scale that it came with. Never during a tuning run: a reward that changes its
scale between two steps would look like learning.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from agent.brief import Brief
from agent.episode import Episode
from agent.errors import ColoqError
from agent.language import primary_code

log = structlog.get_logger(__name__)

MIN_REPLIES = 64
"""Served replies that a calibration needs: a mean within an eighth of the deviation, on average."""
MAX_REPLIES = 256
_PERIOD_S = 60.0


class ServedReplies(Protocol):
    """Where served replies are read; the journal."""

    async def held_out(self, languages: Sequence[str], num_prompts: int) -> list[Episode]:
        """See agent.ports.ClaimingJournal.held_out."""
        ...


class CalibratedModels(Protocol):
    """What is calibrated; service.engine_rewards.EngineRewards in a node."""

    def uncalibrated(self, wanted: Sequence[str]) -> list[str]:
        """Languages among those wanted that lack a calibration."""
        ...

    async def calibrate(self, language: str, replies: Sequence[tuple[Brief, str]]) -> None:
        """Raises ColoqError."""
        ...


class RewardCalibrator:
    """Looks once a minute."""

    def __init__(
        self,
        models: CalibratedModels,
        served: ServedReplies,
        languages: Callable[[], Sequence[str]],
        is_tuning: Callable[[], bool],
    ) -> None:
        """``languages`` are those of the node's tenants."""
        self._models, self._served = models, served
        self._languages, self._is_tuning = languages, is_tuning

    async def run(self) -> None:
        """Look until cancelled. What fails is logged and tried again."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                await self.look()
            except ColoqError as error:
                log.warning("reward_models_not_calibrated", reason=str(error))

    async def look(self) -> None:
        """Calibrate what can be.

        Raises:
            ColoqError: the store or the models could not be reached.
        """
        for language in self._models.uncalibrated(sorted({primary_code(code) for code in self._languages()})):
            episodes = await self._served.held_out([language], MAX_REPLIES)
            if len(episodes) < MIN_REPLIES or self._is_tuning():
                continue
            replies = [(episode.brief, episode.completions[episode.served].text) for episode in episodes]
            await self._models.calibrate(language, replies)
