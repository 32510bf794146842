"""A rate as a token bucket: what is used drains it, time fills it up to one minute's worth."""

import math

WINDOW_S = 60


class Rate:
    """``quota`` units in a minute. Times are seconds of one monotonic clock."""

    def __init__(self, quota: int, now_s: float) -> None:
        self.quota = quota
        self._level = float(quota)
        self._at_s = now_s

    def adjust(self, quota: int) -> None:
        """Another quota from now on; what was used stays used."""
        self._level += quota - self.quota
        self.quota = quota

    def wait_s(self, now_s: float) -> float:
        """Seconds until a unit is there; 0 when it is."""
        self._fill(now_s)
        return max((1 - self._level) * WINDOW_S / self.quota, 0.0)

    def use(self, units: int) -> None:
        """Take units, also more than there are: who comes next waits longer."""
        self._level -= units

    def remaining(self, now_s: float) -> int:
        """Whole units that are there."""
        self._fill(now_s)
        return max(math.floor(self._level), 0)

    def full_in_s(self, now_s: float) -> int:
        """Whole seconds until the minute's worth is there again."""
        self._fill(now_s)
        return math.ceil((self.quota - self._level) * WINDOW_S / self.quota)

    def _fill(self, now_s: float) -> None:
        if now_s > self._at_s:
            self._level = min(self._level + (now_s - self._at_s) * self.quota / WINDOW_S, float(self.quota))
            self._at_s = now_s
