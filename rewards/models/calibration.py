"""What a raw score is worth: freed of length, measured in deviations, centred on a reference, bounded.

    r' = r − slope · (log(1 + words) − mean)      slope and mean of the task (the brief's kind)
    z  = (r' − center) / scale                    of the language's model
    value = 2 · sigmoid(z − z_ref) − 1            in [−1, 1]; z_ref is the reference reply's
    judges: mean(values) − k · std(values)        kept in [−1, 1]

Reward models like long replies, and not by the same amount for every task: the trend is taken out per language and
task (regression on length: arXiv 2505.12843). A sigmoid of the reward less the reference reply's bounds the reward and
centres it, both of which make it harder to hack (PAR, arXiv 2502.18770, section 4). Disagreement between judges marks
replies that neither knows: the mean less k deviations is a pessimistic ensemble (Coste et al., arXiv 2310.02743).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, pstdev

MIN_TREND_REPLIES = 8
"""A kind with fewer logged replies has no trend of its own: two or three would fit any line."""


@dataclass(frozen=True, slots=True)
class LengthTrend:
    """How a model's score rises with length, for one kind of brief."""

    slope: float
    """Score per unit of log(1 + words)."""
    mean_log_words: float
    """Mean of log(1 + words) over the replies that the slope was fitted on."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One language's scale of raw scores. The default leaves them as they are."""

    center: float = 0.0
    scale: float = 1.0
    length: Mapping[str, LengthTrend] = field(default_factory=dict)
    """By the brief's kind; a kind that is not there has no trend."""

    def __post_init__(self) -> None:
        trends = [number for trend in self.length.values() for number in (trend.slope, trend.mean_log_words)]
        if not all(map(math.isfinite, (self.center, self.scale, *trends))):
            raise ValueError("a calibration must be finite")
        if self.scale <= 0:
            raise ValueError(f"scale must be above 0, got {self.scale}")

    def standard(self, raw: float, *, kind: str, num_words: int) -> float:
        """A raw score without its length trend, in deviations from the language's mean (z)."""
        trend = self.length.get(kind)
        if trend is not None:
            raw -= trend.slope * (math.log1p(num_words) - trend.mean_log_words)
        return (raw - self.center) / self.scale


IDENTITY = Calibration()


@dataclass(frozen=True, slots=True)
class Observation:
    """The raw score of one logged reply."""

    raw: float
    kind: str
    num_words: int
    """As rewards.words counts them."""


def fit_calibration(observations: Sequence[Observation]) -> Calibration:
    """The calibration of one language's model, from replies that were logged: mean, deviation, least squares per kind.

    Replies that all score the same keep a scale of 1. A kind needs MIN_TREND_REPLIES replies of different lengths.

    Raises:
        ValueError: fewer than two observations, or one that is not finite.
    """
    if len(observations) < 2:
        raise ValueError(f"a calibration needs at least 2 scored replies, got {len(observations)}")
    raws = [observation.raw for observation in observations]
    if not all(map(math.isfinite, raws)):
        raise ValueError("raw scores must be finite to calibrate by them")
    by_kind: defaultdict[str, list[Observation]] = defaultdict(list)
    for observation in observations:
        by_kind[observation.kind].append(observation)
    trends = {kind: trend for kind, rows in sorted(by_kind.items()) if (trend := _fit_trend(rows)) is not None}
    return Calibration(fmean(raws), pstdev(raws) or 1.0, trends)


def _fit_trend(rows: Sequence[Observation]) -> LengthTrend | None:
    lengths = [math.log1p(row.num_words) for row in rows]
    if len(rows) < MIN_TREND_REPLIES or min(lengths) == max(lengths):
        return None
    mean_length, mean_raw = fmean(lengths), fmean(row.raw for row in rows)
    covariance = sum((x - mean_length) * (row.raw - mean_raw) for x, row in zip(lengths, rows, strict=True))
    return LengthTrend(covariance / sum((x - mean_length) ** 2 for x in lengths), mean_length)


def centred(standard: float, reference: float = 0.0) -> float:
    """2 · sigmoid(z − z_ref) − 1, which is tanh of half the difference: in [−1, 1], 0 for the reference itself.

    Without a reference reply z_ref is 0: the mean of the replies that the model was calibrated on.
    """
    return math.tanh((standard - reference) / 2)


def pessimistic(values: Sequence[float], penalty: float) -> float:
    """mean − penalty · std (of the population) over the judges of one reply, not below −1.

    Raises:
        statistics.StatisticsError: there is no value.
    """
    return max(-1.0, fmean(values) - penalty * pstdev(values))
