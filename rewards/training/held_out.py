"""What a reward model is worth on held-out pairs: accuracy, calibration, length bias, each source by itself.

The model's probability that the chosen reply is the better one is sigmoid(margin) (Bradley and Terry 1952), which is
what training maximises. Its confidence is the larger of that and its complement, so it lies in [0.5, 1]; the expected
calibration error compares it with accuracy in ten bins of equal width (Guo et al. 2017, arXiv 1706.04599, section 2).
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rewards.training.scored import ScoredPair, ScoredReply, by_prompt, share_right

NUM_BINS = 10
_Z95 = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of pairs whose chosen reply scored better, with its 95 % interval."""

    num_pairs: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class HeldOutReport:
    """A reward model on the held-out pairs of its language."""

    num_prompts: int
    accuracy: Accuracy
    raw_accuracy: float
    """Before length is taken out: above ``accuracy`` where people did prefer longer or shorter replies."""
    brier: float
    """Mean squared distance of sigmoid(margin) from 1; 0.25 for a model that knows nothing."""
    calibration_error: float
    """Expected calibration error of sigmoid(margin), in [0, 1]."""
    raw_length_correlation: float | None
    """Pearson's correlation of the head's output with log(1 + words), among chosen replies and among rejected ones:
    that people prefer longer replies is no bias. None where one of them is constant."""
    length_correlation: float | None
    """The same, of the score without what length explains."""
    by_source: Mapping[str, Accuracy]


def report_of(pairs: Sequence[ScoredPair]) -> HeldOutReport:
    """Measure a model. Raises ValueError when there is no pair."""
    if not pairs:
        raise ValueError("a report needs at least one held-out pair, got none")
    sources = sorted({pair.source for pair in pairs})
    return HeldOutReport(
        num_prompts=len(by_prompt(pairs)),
        accuracy=accuracy_of(pairs),
        raw_accuracy=sum(pair.chosen.raw > pair.rejected.raw for pair in pairs) / len(pairs),
        brier=statistics.fmean((1 - sigmoid(pair.margin)) ** 2 for pair in pairs),
        calibration_error=calibration_error(pairs),
        raw_length_correlation=_correlation(pairs, lambda reply: reply.raw),
        length_correlation=_correlation(pairs, lambda reply: reply.score),
        by_source={source: accuracy_of([pair for pair in pairs if pair.source is source]) for source in sources},
    )


def accuracy_of(pairs: Sequence[ScoredPair]) -> Accuracy:
    """The share that is right. Raises ValueError when there is no pair."""
    low, high = wilson_interval(sum(pair.is_right for pair in pairs), len(pairs))
    return Accuracy(len(pairs), share_right(pairs), low, high)


def wilson_interval(num_right: int, num_all: int) -> tuple[float, float]:
    """The 95 % score interval of a share (Wilson 1927). Raises ValueError unless 0 <= num_right <= num_all > 0."""
    if not 0 <= num_right <= num_all or num_all == 0:
        raise ValueError(f"num_right must be between 0 and num_all > 0, got {num_right} of {num_all}")
    share, z2 = num_right / num_all, _Z95**2
    centre = (share + z2 / (2 * num_all)) / (1 + z2 / num_all)
    half = _Z95 * math.sqrt(share * (1 - share) / num_all + z2 / (4 * num_all**2)) / (1 + z2 / num_all)
    return max(0.0, centre - half), min(1.0, centre + half)


def calibration_error(pairs: Sequence[ScoredPair]) -> float:
    """sum over bins of (share of pairs) * |accuracy - mean confidence|. Raises ValueError when there is no pair."""
    if not pairs:
        raise ValueError("calibration needs at least one pair, got none")
    bins: dict[int, list[ScoredPair]] = {}
    for pair in pairs:
        bins.setdefault(min(int((_confidence(pair) - 0.5) * 2 * NUM_BINS), NUM_BINS - 1), []).append(pair)
    gaps = (len(members) * abs(share_right(members) - _mean_confidence(members)) for members in bins.values())
    return sum(gaps) / len(pairs)


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x), for any finite x."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _confidence(pair: ScoredPair) -> float:
    return sigmoid(abs(pair.margin))


def _mean_confidence(pairs: Sequence[ScoredPair]) -> float:
    return statistics.fmean(map(_confidence, pairs))


def _correlation(pairs: Sequence[ScoredPair], value: Callable[[ScoredReply], float]) -> float | None:
    """Of deviations from the mean of each side."""
    lengths, values = [], []
    for side in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs]):
        mean_length, mean_value = (statistics.fmean(map(of, side)) for of in (_log_words, value))
        lengths += [reply.log_words - mean_length for reply in side]
        values += [value(reply) - mean_value for reply in side]
    if not any(lengths) or not any(values):
        return None
    return statistics.correlation(lengths, values)


def _log_words(reply: ScoredReply) -> float:
    return reply.log_words
