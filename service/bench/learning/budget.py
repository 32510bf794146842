"""How long a bench may take, what its phases are expected to, and how long they took."""

import time
from collections.abc import Callable
from dataclasses import dataclass

_MARGIN_S = 10.0
"""For what comes after the last phase: charts, and the node's end."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the plan."""

    name: str
    estimate_s: float


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """A part that was carried out."""

    name: str
    duration_s: float


class Budget:
    """Seconds from now on."""

    def __init__(self, total_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        """None never ends."""
        self._clock = clock
        self._ends_s = None if total_s is None else clock() + total_s

    @property
    def left_s(self) -> float:
        """Infinite without a limit; below zero when it is used up."""
        return float("inf") if self._ends_s is None else self._ends_s - self._clock()

    def allows(self, needed_s: float) -> bool:
        """Whether so many seconds and the margin are left."""
        return self.left_s >= needed_s + _MARGIN_S
