"""A setting of tuning on a ladder from least to most: how it moves, and how it learns which rung is too much.

Down is at once, up is one rung at a time after head-room for a second. A rung that was too much is not tried again for
a while, which doubles each time it fails, so that a bound between two rungs costs live requests a violation in a minute
and not in a second. A rung that held for long starts anew.
"""

from collections.abc import Sequence
from itertools import pairwise

from trainer.pace import Pace

_DUTIES = (0.1, 0.25, 0.5, 0.75, 1.0)
_CLEAR_TICKS = 10
_FIRST_RETRY_S, _LONGEST_RETRY_S = 4.0, 60.0
_HELD_S = 60.0


def pace_ladder(partition_sizes: Sequence[int]) -> tuple[Pace, ...]:
    """Every pace that is used, from paused to the whole device. ``partition_sizes`` are ascending, the whole last.

    Below the smallest partition stand shares of the time on it, above it the larger ones. What the engine has left
    decides what a pace costs: with 28 of an H100's 132 multiprocessors and 7B parameters its steps take three times as
    long while a micro-batch runs (README, engine room), so that a tenth of the time on the other 104 is too much.
    """
    if not partition_sizes:
        return (Pace(0, 0.0), *(Pace(0, duty) for duty in _DUTIES))
    for smaller, larger in pairwise(partition_sizes):
        if smaller >= larger:
            raise ValueError(f"partition sizes must ascend, got {list(partition_sizes)}")
    smallest, *others = partition_sizes
    return (
        Pace(smallest, 0.0),
        *(Pace(smallest, duty) for duty in _DUTIES),
        *(Pace(size, 1.0) for size in others),
    )


class Lever:
    """A position on a ladder of ``num_levels`` rungs."""

    def __init__(self, num_levels: int, *, start: int | None = None) -> None:
        """Starts in the middle unless ``start`` says where."""
        self._top = num_levels - 1
        self._clear = 0
        self._retry: dict[int, tuple[float, float]] = {}
        """Rung to (not before, how long it was barred)."""
        self.level = num_levels // 2 if start is None else start
        self._moved_s = 0.0
        self.since_s = 0.0
        """What was measured before says nothing about the present rung."""

    @property
    def top(self) -> int:
        return self._top

    def restart(self, now_s: float) -> None:
        """What was measured until now says nothing about what comes."""
        self.since_s, self._clear = now_s, 0

    def lower(self, now_s: float, rungs: int) -> bool:
        """Go down, at once; False at the bottom."""
        self.restart(now_s)
        if self.level == 0:
            return False
        held_s, self._moved_s = now_s - self._moved_s, now_s
        _, barred_s = self._retry.get(self.level, (0.0, 0.0))
        barred_s = _FIRST_RETRY_S if barred_s == 0 or held_s > _HELD_S else min(2 * barred_s, _LONGEST_RETRY_S)
        self._retry[self.level] = now_s + barred_s, barred_s
        self.level = max(self.level - rungs, 0)
        return True

    def keep(self) -> None:
        """There is no head-room now."""
        self._clear = 0

    def rise(self, now_s: float) -> bool:
        """There is head-room now: go up one rung when it has lasted and the next rung may be tried."""
        self._clear += 1
        if self._clear < _CLEAR_TICKS or self.level == self._top:
            return False
        not_before_s, _ = self._retry.get(self.level + 1, (0.0, 0.0))
        if now_s < not_before_s:
            return False
        self.level += 1
        self._moved_s = now_s
        self.restart(now_s)
        return True
