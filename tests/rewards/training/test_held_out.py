"""What a reward model is worth on held-out pairs, by hand."""

import math

import pytest

from agent.brief import Kind
from rewards.preference import PairSource
from rewards.training.held_out import calibration_error, report_of, wilson_interval
from rewards.training.scored import ScoredPair, ScoredReply
from tests.rewards.training.scored_pairs import pair


def test_wilson_interval_is_the_textbooks() -> None:
    """8 of 10: centre (0.8 + 3.8415/20)/1.38415 = 0.7167, half 1.96 sqrt(0.016 + 3.8415/400)/1.38415 = 0.2266."""
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=5e-5)
    # 0 of 5: the low end is 0, the high end z^2 / (5 + z^2) = 3.8415 / 8.8415.
    assert wilson_interval(0, 5) == pytest.approx((0.0, 0.43448), abs=5e-5)


@pytest.mark.parametrize(("right", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_an_impossible_share_has_no_interval(right: int, total: int) -> None:
    """The rule, then what came."""
    with pytest.raises(ValueError, match=f"got {right} of {total}"):
        wilson_interval(right, total)


def test_accuracy_counts_chosen_replies_that_score_better() -> None:
    """Of margins 1, -1, 0 and 2 two are right: a tie is no. Raw scores 1, 1, 0, 2 would be right thrice."""
    pairs = [pair(1.0), pair(-1.0, raw_margin=1.0), pair(0.0), pair(2.0, source=PairSource.RATING)]
    report = report_of(pairs)
    assert report.accuracy.value == 0.5
    assert report.raw_accuracy == 0.75
    assert report.num_prompts == 1
    assert {source: (share.num_pairs, share.value) for source, share in report.by_source.items()} == {
        "edit": (3, 1 / 3),
        "rating": (1, 1.0),
    }


def test_brier_is_the_squared_distance_from_certainty() -> None:
    """Margins 0 and log 3 are probabilities 1/2 and 3/4: (1/4 + 1/16) / 2 = 0.15625."""
    assert report_of([pair(0.0), pair(math.log(3))]).brier == pytest.approx(0.15625)


def test_calibration_error_compares_confidence_with_accuracy() -> None:
    """Confidences 3/4, 3/4 (one bin, half of them right: gap 1/4) and 9/10 (right: gap 1/10).

    (2 * 0.25 + 1 * 0.1) / 3 = 0.2. A wrong pair is as confident as its margin is large.
    """
    pairs = [pair(math.log(3)), pair(-math.log(3)), pair(math.log(9))]
    assert calibration_error(pairs) == pytest.approx(0.2)


def test_certainty_beyond_what_a_float_holds_is_measured() -> None:
    """A margin of ±1000 is confidence 1: right and wrong once each, the gap is 1/2."""
    assert calibration_error([pair(1000.0), pair(-1000.0)]) == pytest.approx(0.5)


def test_length_bias_is_a_correlation_within_each_side() -> None:
    """Raw scores that rise with log(1 + words), and by 5 more for rejected replies, correlate by 1 all the same.

    Scores that do not move have no correlation.
    """

    def reply(num: int, offset: float) -> ScoredReply:
        return ScoredReply(math.log(num) + offset, 0.0, math.log(num))

    pairs = [
        ScoredPair("p", Kind.CREATE, PairSource.EDIT, reply(8, 0.0), reply(2, 5.0)),
        ScoredPair("p", Kind.CREATE, PairSource.EDIT, reply(4, 0.0), reply(16, 5.0)),
    ]
    report = report_of(pairs)
    assert report.raw_length_correlation == pytest.approx(1.0)
    assert report.length_correlation is None


def test_nothing_held_out_is_no_report() -> None:
    """Not a report of zeros."""
    with pytest.raises(ValueError, match="at least one"):
        report_of([])
