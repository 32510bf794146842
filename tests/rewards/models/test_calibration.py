"""The formula from a raw score to a bounded part, by hand."""

import math

import pytest

from rewards.models.calibration import (
    IDENTITY,
    Calibration,
    LengthTrend,
    Observation,
    centred,
    fit_calibration,
    pessimistic,
)


def test_length_is_taken_out_before_the_scale() -> None:
    """7 words: log(8) = 2.0794; 4 − 0.5 · (2.0794 − 3) = 4.4603; (4.4603 − 1) / 2 = 1.7301."""
    calibration = Calibration(1.0, 2.0, {"create": LengthTrend(0.5, 3.0)})
    assert calibration.standard(4.0, kind="create", num_words=7) == pytest.approx(1.7301, abs=1e-4)


def test_a_kind_without_a_trend_keeps_its_length() -> None:
    """(4 − 1) / 2 = 1.5 for a translation of any length."""
    calibration = Calibration(1.0, 2.0, {"create": LengthTrend(0.5, 3.0)})
    assert {calibration.standard(4.0, kind="translate", num_words=n) for n in (1, 500)} == {1.5}
    assert IDENTITY.standard(4.0, kind="create", num_words=7) == 4.0


def test_the_reference_reply_is_worth_nothing_and_twice_the_sigmoid_the_rest() -> None:
    """2 · sigmoid(1) − 1 = 2 · 0.731059 − 1 = 0.462117, and as much below for the opposite."""
    assert centred(0.7, 0.7) == 0.0
    assert centred(1.5, 0.5) == pytest.approx(0.462117, abs=1e-6)
    assert centred(0.5, 1.5) == pytest.approx(-0.462117, abs=1e-6)
    assert centred(1.0) == pytest.approx(0.462117, abs=1e-6)


def test_a_wild_score_stays_in_its_bounds() -> None:
    """A reward that runs away is worth 1 at the most, without overflow."""
    assert (centred(1e6), centred(-1e6)) == (1.0, -1.0)


def test_judges_that_disagree_are_believed_less() -> None:
    """Mean of 0.8 and 0.2 is 0.5, their deviation 0.3: 0.5 − 0.5 · 0.3 = 0.35. One judge has no deviation."""
    assert pessimistic([0.8, 0.2], 0.5) == pytest.approx(0.35)
    assert pessimistic([0.8], 5.0) == 0.8
    assert pessimistic([-1.0, 1.0], 2.0) == -1.0


def test_a_fitted_trend_is_the_line_through_the_replies() -> None:
    """Scores of 2 · log(1 + words) + 1 have slope 2 exactly; without their length all are the same."""
    counts = (1, 3, 5, 8, 13, 21, 34, 55)
    rows = [Observation(2 * math.log1p(n) + 1, "create", n) for n in counts]
    calibration = fit_calibration(rows)
    assert calibration.length["create"].slope == pytest.approx(2.0)
    standards = [calibration.standard(row.raw, kind="create", num_words=row.num_words) for row in rows]
    assert standards == pytest.approx([0.0] * 8, abs=1e-9)


def test_center_and_scale_are_mean_and_deviation() -> None:
    """Of 1, 3 and 5: mean 3, deviation sqrt(8/3)."""
    calibration = fit_calibration([Observation(raw, "create", 5) for raw in (1.0, 3.0, 5.0)])
    assert calibration.center == 3.0
    assert calibration.scale == pytest.approx(math.sqrt(8 / 3))


def test_trends_need_replies_of_different_lengths() -> None:
    """Seven replies, or eight of one length, fit no line; equal scores keep a scale of 1."""
    few = [Observation(float(n), "create", n) for n in range(7)]
    equal = [Observation(1.0, "rewrite", 5)] * 8
    assert fit_calibration(few + equal).length == {}
    assert fit_calibration(equal).scale == 1.0


def test_one_reply_calibrates_nothing() -> None:
    """It has no deviation."""
    with pytest.raises(ValueError, match="at least 2 scored replies, got 1"):
        fit_calibration([Observation(1.0, "create", 5)])


def test_what_is_not_finite_is_refused() -> None:
    """A model that answered with NaN does not poison the scale of its language."""
    with pytest.raises(ValueError, match="must be finite"):
        fit_calibration([Observation(math.nan, "create", 5), Observation(1.0, "create", 5)])
    with pytest.raises(ValueError, match="scale must be above 0, got 0"):
        Calibration(0.0, 0.0)
