"""What tuning did while something was measured.

A request is slowed by what ran beside it, so a measurement counts as evidence about training only when training ran
during it, about rollouts only when rollouts did, and as baseline only when neither did for its whole length. What ran
in a span is told at its end, and of a micro-batch only when it is done: so whether a measurement was calm is asked a
little later.
"""

from collections import deque
from dataclasses import dataclass

_KEPT_S = 60.0
AFTERMATH_S = 0.2
"""A micro-batch that ends this long after a measurement may have run during it."""
_LEAST_TRAINED = 0.05
_LEAST_ROLLED = 0.25
_SLACK_S = 1e-6


@dataclass(frozen=True, slots=True)
class Span:
    """What ran between two looks. ``train_share`` is None when the worker did not say."""

    began_s: float
    ended_s: float
    train_share: float | None
    num_live: int
    num_rollouts: int

    @property
    def calm(self) -> bool:
        """True when nothing of tuning ran in the engine process."""
        return self.train_share == 0 and self.num_rollouts == 0


@dataclass(frozen=True, slots=True)
class Exposure:
    """What ran beside a measurement."""

    trained: bool
    rolled: bool
    load: float
    """Live sequences, on average over the measurement."""


class Timeline:
    """The newest spans, each beginning where the one before it ended."""

    def __init__(self) -> None:
        self._spans: deque[Span] = deque()

    def add(self, span: Span) -> None:
        """Append the newest span."""
        self._spans.append(span)
        while span.ended_s - self._spans[0].ended_s > _KEPT_S:
            self._spans.popleft()

    def exposure(self, began_s: float, ended_s: float) -> Exposure:
        """What ran between two times, more than a little."""
        trained_s = rolled_s = live_s = 0.0
        for span in reversed(self._spans):
            if span.ended_s <= began_s:
                break
            overlap_s = max(min(ended_s, span.ended_s) - max(began_s, span.began_s), 0.0)
            trained_s += overlap_s * (span.train_share or 0.0)
            rolled_s += overlap_s * (span.num_rollouts > 0)
            live_s += overlap_s * span.num_live
        length_s = max(ended_s - began_s, _SLACK_S)
        return Exposure(
            trained=trained_s >= _LEAST_TRAINED * length_s,
            rolled=rolled_s >= _LEAST_ROLLED * length_s,
            load=live_s / length_s,
        )

    def was_calm(self, began_s: float, ended_s: float) -> bool:
        """Whether nothing of tuning ran between two times, nor just after. A time that no span covers is not calm."""
        covered_s = 0.0
        for span in reversed(self._spans):
            if span.ended_s <= began_s:
                break
            if span.began_s < ended_s:
                if not span.calm:
                    return False
                covered_s += min(ended_s, span.ended_s) - max(began_s, span.began_s)
            elif span.began_s < ended_s + AFTERMATH_S and span.train_share != 0:
                return False
        return covered_s >= ended_s - began_s - _SLACK_S
