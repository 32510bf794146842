"""What live requests get without tuning, by load.

Latency depends on how many sequences run, so measurements are kept in buckets of the load, two to each doubling, and a
load between two buckets' means gets a value between theirs. Beyond the outermost buckets their values hold.
"""

import math
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median

from service.slo import MIN_REQUESTS, Baseline, Quantity, percentile

_KEPT = 512
_KEPT_S = 900.0
_MIN_PULSES = 5
_DEVIATION = 1.4826
"""Standard deviations per median absolute deviation, for the normal distribution."""


def bucket(load: float) -> int:
    """The bucket of a number of running live sequences: 8 from 16 on, 9 from 22.6 on, 10 from 32 on."""
    return math.floor(2 * math.log2(max(load, 1.0)))


@dataclass(slots=True)
class _Shelf:
    """The newest measurements of one quantity and bucket."""

    rows: deque[tuple[float, float, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """When, load, value."""
    point: tuple[float, Baseline] | None = None
    """Mean load and baseline, until a row is added."""


class Baselines:
    """Measurements that were taken while nothing of tuning ran."""

    def __init__(self) -> None:
        self._shelves: defaultdict[Quantity, dict[int, _Shelf]] = defaultdict(dict)

    def add(self, quantity: Quantity, load: float, value_s: float, now_s: float) -> None:
        """Keep one measurement for a quarter of an hour, or until 512 newer ones came."""
        shelf = self._shelves[quantity].setdefault(bucket(load), _Shelf())
        shelf.rows.append((now_s, load, value_s))
        while now_s - shelf.rows[0][0] > _KEPT_S:
            shelf.rows.popleft()
        shelf.point = None

    def at(self, quantity: Quantity, load: float) -> Baseline | None:
        """The baseline at a load; None while no bucket has enough measurements."""
        points = sorted(self._points(quantity), key=lambda point: point[0])
        if not points:
            return None
        for (left, low), (right, high) in pairwise(points):
            if left <= load <= right:
                return _between(low, high, (load - left) / (right - left) if right > left else 0.0)
        return points[0][1] if load < points[0][0] else points[-1][1]

    def _points(self, quantity: Quantity) -> Sequence[tuple[float, Baseline]]:
        least = _MIN_PULSES if quantity is Quantity.ENGINE_STEP else MIN_REQUESTS
        points = []
        for shelf in self._shelves[quantity].values():
            if len(shelf.rows) < least:
                continue
            if shelf.point is None:
                shelf.point = fmean(load for _, load, _ in shelf.rows), _baseline(quantity, shelf)
            points.append(shelf.point)
        return points


def _baseline(quantity: Quantity, shelf: _Shelf) -> Baseline:
    values = [value for _, _, value in shelf.rows]
    if quantity is not Quantity.ENGINE_STEP:
        value_s = percentile(values, 0.99)
        return Baseline(value_s, 0.0)
    middle = median(values)
    return Baseline(middle, _DEVIATION * median(abs(value - middle) for value in values))


def _between(low: Baseline, high: Baseline, share: float) -> Baseline:
    return Baseline(
        value_s=low.value_s + share * (high.value_s - low.value_s),
        spread_s=low.spread_s + share * (high.spread_s - low.spread_s),
    )
