"""The always-valid interval."""

import math
import random

import pytest

from service.canary.sequence import difference, radius
from service.canary.tally import Measure, Side, Tally


def tally(*values: float) -> Tally:
    made = Tally()
    for value in values:
        made.add(value)
    return made


def test_the_radius_is_where_the_ratio_reaches_one_over_alpha() -> None:
    """V = 0.01, tau = 0.1: V + tau^2 = 0.02, so r^2 = 0.01 * 0.02 / 0.01 * ln(0.02 / (0.01 * 0.05^2)) = 0.02 ln 800."""
    assert radius(0.01, 0.1, 0.05) == pytest.approx(math.sqrt(0.02 * math.log(800)))


def test_the_test_statistic_at_the_bound_is_one_over_alpha() -> None:
    """Johari et al., equation of the mixture: put the interval's end in, and 1/alpha = 20 comes out."""
    variance, tau, alpha = 0.003, 0.05, 0.05
    reach = radius(variance, tau, alpha)
    widened = variance + tau**2
    ratio = math.sqrt(variance / widened) * math.exp(tau**2 * reach**2 / (2 * variance * widened))
    assert ratio == pytest.approx(20)


def test_a_side_without_variation_still_has_variance() -> None:
    """Of the mean of thirty times 0: (0 + 1) / (30 * 31), not 0. Of 1, 0, 1, 0: squares around the mean 4 * 0.25 = 1,
    so (1 + 1) / (4 * 5)."""
    assert tally(*[0.0] * 30).variance == pytest.approx(1 / 930)
    assert tally(1, 0, 1, 0).variance == pytest.approx(0.1)


def test_what_one_person_got_is_one_draw() -> None:
    """Ann got 1, 1, 1 and Bob 0: the mean is 0.75. Ann's sum is off by 3 - 3 * 0.75 = 0.75, Bob's by -0.75, and with
    the pseudo-value the variance is (0.5625 + 0.5625 + 1) / (4 * 5). As four people it was (3 * 0.0625 + 0.5625 + 1) /
    20. Their sizes 3 and 1 tell as much as 4^2 / (9 + 1) = 1.6 equal ones. The order is nothing to it."""
    made = Tally()
    for value, person in ((1.0, "ann"), (0.0, "bob"), (1.0, "ann"), (1.0, "ann")):
        made.add(value, person)
    assert made.mean == 0.75
    assert made.variance == pytest.approx(2.125 / 20)
    assert made.num_groups == pytest.approx(1.6)
    assert tally(1, 0, 1, 1).variance == pytest.approx(1.75 / 20)
    assert tally(1, 0, 1, 1).num_groups == 4


def test_half_of_a_record_varies_as_the_whole_did() -> None:
    """Four times 1 of Ann and four times 0 of Bob: around the mean of 0.5 the squares are 2 * (4 - 2)^2 = 8, half of
    which is 4; (4 + 1) / (4 * 5). What comes afterwards begins new groups."""
    made = Tally()
    for _ in range(4):
        made.add(1.0, "ann")
        made.add(0.0, "bob")
    made.halve()
    assert (made.num, made.mean) == (4, 0.5)
    assert made.variance == pytest.approx(0.25)
    made.add(0.5, "ann")
    assert made.sized == pytest.approx(12.0)  # (16 + 16 - 8) / 2, as before


def test_the_interval_lies_around_the_difference() -> None:
    """Candidate mean 0.5, stable 0.75."""
    found = difference(tally(0, 1), tally(0.5, 1.0), scale=0.1, alpha=0.05)
    assert found.difference == pytest.approx(-0.25)
    assert found.upper - found.difference == pytest.approx(found.difference - found.lower)


def test_looking_after_every_value_misses_the_truth_no_more_often_than_alpha() -> None:
    """200 runs of two equal normal streams, looked at 380 times each: at alpha 0.1 at most 20 intervals may ever leave
    0 out. An interval for a single look, 1.645 deviations, leaves it out in most runs."""
    ever, ever_naive = 0, 0
    for seed in range(200):
        rng = random.Random(seed)
        ours, theirs, left, left_naive = Tally(), Tally(), False, False
        for number in range(400):
            ours.add(rng.gauss(0.5, 0.3))
            theirs.add(rng.gauss(0.5, 0.3))
            if number >= 20:
                found = difference(ours, theirs, scale=0.1, alpha=0.1)
                left |= not found.lower <= 0 <= found.upper
                deviation = math.sqrt(ours.variance + theirs.variance)
                left_naive |= abs(found.difference) > 1.645 * deviation
        ever, ever_naive = ever + left, ever_naive + left_naive
    assert ever <= 20
    assert ever_naive > 60


def test_a_long_record_forgets() -> None:
    """Eight values at most count fully: at sixteen the sums are halved and the mean stays."""
    side = Side()
    for _ in range(16):
        side.add("de", Measure.REWARD, 0.5)
    side.forget_beyond(8)
    kept = side.get("de", Measure.REWARD)
    assert kept.num == 8
    assert kept.mean == pytest.approx(0.5)
