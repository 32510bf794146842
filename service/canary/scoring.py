"""Scores a few of the served replies for the comparison: at a bounded rate, and when live requests have room for it."""

import asyncio
import time
from collections.abc import Callable

from rewards.score import RewardModel, Score
from service.canary.tally import Measure
from service.canary.traffic import Traffic
from trainer.ports import Admission

_AT_ONCE = 8
"""Replies of one turn: the judges hold Python's lock."""


class SampledScoring:
    """Takes what waits in the traffic, scores it, and adds the rewards."""

    def __init__(
        self,
        traffic: Traffic,
        judge: RewardModel,
        admission: Admission,
        per_minute: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._traffic, self._judge, self._admission = traffic, judge, admission
        self._per_s, self._clock = per_minute / 60, clock
        self._budget, self._counted_s = 0.0, clock()

    async def score_due(self) -> int:
        """Score what the rate allows by now; returns how many got a reward."""
        now_s = self._clock()
        self._budget = min(self._budget + (now_s - self._counted_s) * self._per_s, float(_AT_ONCE))
        self._counted_s = now_s
        orders = self._traffic.take(int(self._budget))
        if not orders:
            return 0
        self._budget -= len(orders)
        await self._admission.admitted()
        scores = await asyncio.to_thread(self._judge.score, [order.sample for order in orders])
        graded = 0
        for order, score in zip(orders, scores, strict=True):
            if isinstance(score, Score):
                graded += 1
                for side in order.sides:
                    side.add(order.language, Measure.REWARD, score.value, order.group)
        self._traffic.changed |= graded > 0
        return graded
