"""What live requests got and what they may get: measurements, and how they stand to the bounds of `[slo]`.

A bound is on a 99th percentile. With n measurements of which k lie above the bound, the percentile is held to be beyond
it when k is larger than chance explains: with the percentile exactly at the bound, k is close to Poisson with mean
0.01 n. So a handful of slow requests among hundreds moves nothing, and no percentile is read out of too few of them.

A relative bound is not judged by these percentiles but by the engine's steps (service.slowdown): of a quantity that has
one, value and bound are shown, and its standing is not known here.

The p99 of engine steps stands in for the time between tokens where too few requests finished. A pulse covers about a
dozen steps, so its p99 is close to their maximum; its median over pulses is compared with the one without tuning.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from statistics import median, median_low

from agent.completion import GenerationTiming
from service.config import SloConfig

MIN_REQUESTS = 40
"""Fewest finished requests that a 99th percentile is read from."""
MIN_PULSES = 2
"""Fewest pulses that engine steps are judged by."""
_RECENT_PULSES = 6
"""A violation is read from the newest pulses, so that it shows within half a second."""
_CLEAR_PULSES = 10
"""Head-room is read from no fewer pulses than these."""
_RARE = 0.01
_CHANCE = 0.01
"""Probability of that many requests above the bound, below which chance is ruled out."""
_SURE = 2.58
"""Standard deviations of a median beyond which chance is ruled out: one-sided 99.5 %. It is asked ten times a second;
at 95 % it was answered wrongly every dozen seconds."""
_MEDIAN_ERROR = 1.2533
"""Standard error of a median, in standard deviations over sqrt(n): sqrt(pi / 2) for the normal distribution."""
_FAR = 1.5
_CLEAR_SHARE = 0.85
"""Head-room is below this share of a bound whose baseline is not known."""


class Quantity(StrEnum):
    """What is measured, in seconds."""

    TTFT = "ttft"
    INTER_TOKEN = "inter_token"
    ENGINE_STEP = "engine_step"


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """A live request that finished; the times are of a monotonic clock, in seconds."""

    started_s: float
    """When it was handed to the engine."""
    finished_s: float
    timing: GenerationTiming


@dataclass(frozen=True, slots=True)
class Baseline:
    """A quantity without tuning, at one load."""

    value_s: float
    """p99 over requests, or median over pulses of the steps' p99."""
    spread_s: float
    """Standard deviation between pulses; 0 for requests, which are judged without it."""


class Standing(IntEnum):
    """How measurements stand to their bound, from good to bad."""

    CLEAR = 0
    """With head-room."""
    WITHIN = 1
    OVER = 2
    FAR_OVER = 3
    """1.5 times the bound or more."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A quantity at one moment."""

    quantity: Quantity
    value_s: float
    """p99 over requests, or median over pulses of the steps' p99."""
    bound_s: float | None
    """None while there is no bound: none is configured, and the baseline is not known yet."""
    baseline_s: float | None
    standing: Standing | None
    """None without a bound, and for a relative one."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of `[slo]`."""

    slo: SloConfig

    @property
    def has_relative(self) -> bool:
        """True when a bound is relative."""
        return any(map(self.relative, Quantity))

    @property
    def has_fixed(self) -> bool:
        """True when a bound is a number of milliseconds."""
        return not all(map(self.relative, Quantity))

    def relative(self, quantity: Quantity) -> bool:
        """True when the bound is a ratio to the baseline."""
        return self._fixed_ms(quantity) is None

    def bound(self, quantity: Quantity, baseline: Baseline | None) -> float | None:
        """The bound in seconds; engine steps have that of the time between tokens."""
        fixed_ms = self._fixed_ms(quantity)
        if fixed_ms is not None:
            return fixed_ms / 1000
        return None if baseline is None else baseline.value_s * self.slo.ratio

    def _fixed_ms(self, quantity: Quantity) -> float | None:
        return self.slo.ttft_p99_ms if quantity is Quantity.TTFT else self.slo.inter_token_p99_ms

    def read(self, quantity: Quantity, values: Sequence[float], baseline: Baseline | None) -> Reading | None:
        """Judge measurements, oldest first; None when there are too few. Nothing measured is never a latency of 0."""
        is_step = quantity is Quantity.ENGINE_STEP
        if len(values) < (MIN_PULSES if is_step else MIN_REQUESTS):
            return None
        bound = self.bound(quantity, baseline)
        value = median_low(values[-_RECENT_PULSES:]) if is_step else percentile(values, 1 - _RARE)
        standing = None
        if bound is not None and not self.relative(quantity):
            clear = _clear_line(bound, baseline)
            if is_step:
                standing = _judge_steps(values, bound, clear, baseline.spread_s if baseline is not None else 0.0)
            else:
                standing = _judge_requests(values, bound, clear)
        return Reading(quantity, value, bound, baseline.value_s if baseline is not None else None, standing)


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile: the smallest value that at least ``share`` of the values do not exceed."""
    return sorted(values)[max(math.ceil(share * len(values) - 1e-9), 1) - 1]


def poisson_tail(count: int, mean: float) -> float:
    """The probability of ``count`` or more, for the Poisson distribution."""
    term, below = math.exp(-mean), 0.0
    for number in range(count):
        below += term
        term *= mean / (number + 1)
    return max(1.0 - below, 0.0)


def _clear_line(bound_s: float, baseline: Baseline | None) -> float:
    """Below it there is head-room: half way from the baseline to the bound."""
    if baseline is None or baseline.value_s >= bound_s:
        return bound_s * _CLEAR_SHARE
    return (baseline.value_s + bound_s) / 2


def _judge_requests(values: Sequence[float], bound_s: float, clear_s: float) -> Standing:
    num_above = sum(value > bound_s for value in values)
    worst = percentile(values, 1 - _RARE)
    if poisson_tail(num_above, _RARE * len(values)) < _CHANCE:
        return Standing.FAR_OVER if worst >= _FAR * bound_s else Standing.OVER
    return Standing.CLEAR if worst <= clear_s else Standing.WITHIN


def _judge_steps(values: Sequence[float], bound_s: float, clear_s: float, spread_s: float) -> Standing:
    recent = values[-_RECENT_PULSES:]
    chance = _SURE * _MEDIAN_ERROR * spread_s / math.sqrt(len(recent))
    middle = median_low(recent)
    if middle > bound_s + chance:
        return Standing.FAR_OVER if middle >= _FAR * bound_s else Standing.OVER
    return Standing.CLEAR if len(values) >= _CLEAR_PULSES and median(values) <= clear_s else Standing.WITHIN
