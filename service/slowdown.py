"""How much slower the engine's steps are beside training at one pace: a running mean over pulses, and how sure it is.

ratio of a pulse     the steps' time over what steps of their size take without training (trainer.matched_steps)
error of the mean    sqrt(variance / n + error of what they are compared with ** 2)
"""

import math
from dataclasses import dataclass

MIN_PULSES = 10
"""Fewest pulses that a mean is judged by: a second of them."""
_SURE = 2.33
"""Standard errors beyond which chance is ruled out: one-sided 99 %."""
_MOST = 600.0
"""Weight of what is remembered, a minute; beyond it everything counts half."""
_LARGEST_RATIO = 3.0
"""What a single pulse counts at most: one long step must not decide."""


@dataclass(slots=True)
class Slowdown:
    """Of the pulses at one pace."""

    since_s: float = 0.0
    """When that pace began."""
    _common_error: float = 0.0
    _count: float = 0.0
    _sum: float = 0.0
    _squares: float = 0.0

    def restart(self, since_s: float) -> None:
        """Another pace: what was measured before says nothing about it."""
        self.since_s = since_s
        self._count = self._sum = self._squares = 0.0

    def add(self, ratio: float, error: float) -> None:
        """Take in one pulse; ``error`` is that of what it is compared with, as a share, which all have in common."""
        ratio = min(ratio, _LARGEST_RATIO)
        self._common_error = error
        self._count += 1
        self._sum += ratio
        self._squares += ratio * ratio
        if self._count > _MOST:
            self._count, self._sum, self._squares = self._count / 2, self._sum / 2, self._squares / 2

    @property
    def mean(self) -> float | None:
        """None while there are too few pulses."""
        return self._sum / self._count if self._count >= MIN_PULSES else None

    def surely_above(self, limit: float) -> bool:
        """Whether the mean lies above, beyond chance."""
        return self.mean is not None and self.mean - _SURE * self._error > limit

    @property
    def _error(self) -> float:
        mean = self._sum / self._count
        variance = max(self._squares / self._count - mean * mean, 0.0)
        return math.sqrt(variance / self._count + (mean * self._common_error) ** 2)
