"""The calibration of a trained model, from the replies that it was trained on.

    r = a + b · [reply was chosen] + slope · log(1 + words)         least squares, for each kind of brief

The slope is what length adds among chosen replies and among rejected ones. Without the term of b it would also take out
what people did prefer wherever that happens to be longer: edits of 19 words over replies of 8 left an accuracy of 0.59
of 1.00.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from rewards.models.calibration import MIN_TREND_REPLIES, Calibration, LengthTrend, Observation, fit_calibration


@dataclass(frozen=True, slots=True)
class TrainingReply:
    """One reply of a training pair, scored."""

    raw: float
    kind: str
    num_words: int
    log_words: float
    """log(1 + words)."""
    chosen: bool


def calibrate(replies: Sequence[TrainingReply]) -> Calibration:
    """Mean, deviation and length trends. A kind needs MIN_TREND_REPLIES replies, whose lengths differ on one side.

    Raises:
        ValueError: fewer than two replies, or a score that is not finite.
    """
    overall = fit_calibration([Observation(reply.raw, reply.kind, reply.num_words) for reply in replies])
    by_kind: defaultdict[str, list[TrainingReply]] = defaultdict(list)
    for reply in replies:
        by_kind[reply.kind].append(reply)
    trends = {kind: trend for kind, rows in sorted(by_kind.items()) if (trend := length_trend(rows)) is not None}
    return replace(overall, length=trends)


def length_trend(replies: Sequence[TrainingReply]) -> LengthTrend | None:
    """The trend of one kind; None where there is too little to fit it on."""
    if len(replies) < MIN_TREND_REPLIES:
        return None
    covariance = variance = 0.0
    for chosen in (True, False):
        side = [reply for reply in replies if reply.chosen is chosen]
        if not side:
            continue
        mean_length, mean_raw = fmean(reply.log_words for reply in side), fmean(reply.raw for reply in side)
        covariance += sum((reply.log_words - mean_length) * (reply.raw - mean_raw) for reply in side)
        variance += sum((reply.log_words - mean_length) ** 2 for reply in side)
    if variance == 0:
        return None
    return LengthTrend(covariance / variance, fmean(reply.log_words for reply in replies))
