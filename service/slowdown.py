"""How much training slows the time between tokens: a running mean, which tells a few percent apart where a 99th
percentile of the same requests cannot.

    ratio of a request   its time between tokens over the mean without tuning at the same load
    error of the mean    deviation / sqrt(n): 15 % between requests are 1 % between means of 200 of them
"""

import math
from dataclasses import dataclass

MIN_REQUESTS = 40
"""Fewest requests that a mean is judged by."""
_SURE = 2.33
"""Standard errors beyond which chance is ruled out: one-sided 99 %."""
_MOST = 2000.0
"""Weight of what is remembered; beyond it everything counts half."""
_LARGEST_RATIO = 3.0
"""What a single request counts at most: one that waited for something else must not decide."""


@dataclass(slots=True)
class Slowdown:
    """Of requests that ran beside training at one pace."""

    since_s: float = 0.0
    """When that pace began."""
    _count: float = 0.0
    _sum: float = 0.0
    _squares: float = 0.0

    def restart(self, since_s: float) -> None:
        """Another pace: what was measured before says nothing about it."""
        self.since_s = since_s
        self._count = self._sum = self._squares = 0.0

    def add(self, ratio: float) -> None:
        """Take in one request."""
        ratio = min(ratio, _LARGEST_RATIO)
        self._count += 1
        self._sum += ratio
        self._squares += ratio * ratio
        if self._count > _MOST:
            self._count, self._sum, self._squares = self._count / 2, self._sum / 2, self._squares / 2

    @property
    def mean(self) -> float | None:
        """None while there are too few requests."""
        return self._sum / self._count if self._count >= MIN_REQUESTS else None

    def surely_above(self, limit: float) -> bool:
        """Whether the mean lies above, beyond chance."""
        return self.mean is not None and self.mean - _SURE * self._error > limit

    def surely_below(self, limit: float) -> bool:
        """Whether the mean lies below, beyond chance."""
        return self.mean is not None and self.mean + _SURE * self._error < limit

    @property
    def _error(self) -> float:
        mean = self._sum / self._count
        return math.sqrt(max(self._squares / self._count - mean * mean, 0.0) / self._count)
