"""When tuning pauses, so that live requests can be measured without it."""

from collections import defaultdict

from service.exposure import Span

_PAUSE_S, _LONGEST_PAUSE_S = 1.5, 3.0
"""How long live requests have the engine to themselves in a pause, and how long a pause waits for that."""
_REFRESH_S = 60.0
_NEW_LOAD_S = 20.0
"""Least time between two pauses at loads that were not measured yet."""


class Pauses:
    """Pauses of one node, by bucket of load (service.baseline.bucket). Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self._began_s: float | None = None
        self._ended_s = float("-inf")
        self._calm_s: defaultdict[int, float] = defaultdict(float)
        self._measured_s: dict[int, float] = {}

    @property
    def active(self) -> bool:
        return self._began_s is not None

    def note_calm(self, load: int, span: Span) -> None:
        """Live requests of that bucket had the engine to themselves; 1.5 s of that, in pieces, is a measurement."""
        self._calm_s[load] += span.ended_s - span.began_s
        if self._calm_s[load] >= _PAUSE_S:
            self._calm_s[load], self._measured_s[load] = 0.0, span.ended_s

    def due(self, now_s: float, load: int) -> bool:
        """Whether a bucket was not measured for long, or never."""
        measured_s = self._measured_s.get(load)
        if measured_s is None:
            return now_s - self._ended_s >= _NEW_LOAD_S
        return now_s - max(measured_s, self._ended_s) >= _REFRESH_S

    def begin(self, now_s: float) -> None:
        self._began_s = now_s
        self._calm_s.clear()

    def over(self, now_s: float) -> bool:
        """Enough was measured, or rollouts take too long to end."""
        if self._began_s is None:
            return False
        measured = any(measured_s > self._began_s for measured_s in self._measured_s.values())
        return measured or now_s - self._began_s >= _LONGEST_PAUSE_S

    def end(self, now_s: float) -> None:
        self._began_s, self._ended_s = None, now_s
