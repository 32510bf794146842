"""A request as an operator sees it: the episode, its reward as the panel scores it now, and what people said of it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.episode import Episode
from agent.errors import ReplyNotKept
from agent.feedback import Feedback
from agent.texts import served_text
from rewards.score import RewardModel, Sample, Score, Ungradable
from service.feedback.desk import FeedbackDesk
from service.feedback.ports import Episodes


class WeighingPanel(RewardModel, Protocol):
    """A panel that tells what its parts weigh."""

    def weights(self, tenant: str, language: str) -> Mapping[str, float]:
        """The weight of each part for one tenant and language."""
        ...

    def score(self, samples: Sequence[Sample]) -> Sequence[Score | Ungradable]:
        """See RewardModel.score; a panel judges every sample."""
        ...


@dataclass(frozen=True, slots=True)
class Inspection:
    """One request."""

    episode: Episode
    score: Score | Ungradable
    """Of the text that was served."""
    weights: Mapping[str, float]
    feedback: Sequence[Feedback]
    """The newest pieces, oldest first."""


@dataclass(frozen=True, slots=True)
class Inspector:
    """Looks requests up, whosever they are."""

    episodes: Episodes
    desk: FeedbackDesk
    panel: WeighingPanel

    async def inspect(self, request_id: str) -> Inspection:
        """Everything of one request. The panel scores in a thread, as it does for live requests.

        Raises:
            ReplyNotKept: the journal has no such request, or no longer.
            StoreError: the store could not be reached.
        """
        episode = await self.episodes.find(request_id)
        if episode is None:
            raise ReplyNotKept(
                f"there is no reply to {request_id} in the journal; of a call for several languages each has an id of "
                "its own, which ends with its language."
            )
        served = episode.completions[episode.served]
        sample = Sample(episode.brief, served_text(episode), served.finish_reason, len(served.token_ids))
        (score,) = await asyncio.to_thread(self.panel.score, [sample])
        weights = self.panel.weights(episode.brief.tenant, episode.brief.language)
        return Inspection(episode, score, weights, await self.desk.of_episode(episode))
