"""The panel as the ranker of replies that are about to be served."""

import asyncio
from collections.abc import Sequence

from agent.alternatives import best_first
from agent.brief import Brief
from agent.completion import Completion
from rewards.score import RewardModel, Sample, Score


class PanelRanker:
    """agent.ports.Ranker: the judges of the brief's tenant and language, in a thread of their own.

    It does not wait for admission as scoring for tuning does: it is live requests that would be waiting.
    """

    def __init__(self, panel: RewardModel) -> None:
        self._panel = panel

    async def rank(self, brief: Brief, completions: Sequence[Completion]) -> list[int]:
        """See Ranker.rank. What is Ungradable cannot be judged."""
        samples = [Sample.of(brief, completion) for completion in completions]
        scores = await asyncio.to_thread(self._panel.score, samples)
        return best_first([score.value if isinstance(score, Score) else None for score in scores])
