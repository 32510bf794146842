"""The running mean of the engine steps' slowdown, and what it may be taken for."""

import pytest

from service.slowdown import Slowdown


def of(*ratios: float, times: int = 1, error: float = 0.0) -> Slowdown:
    slowdown = Slowdown()
    for ratio in ratios * times:
        slowdown.add(ratio, error)
    return slowdown


def test_too_few_pulses_say_nothing() -> None:
    """Nine of them."""
    slowdown = of(2.0, times=9)
    assert slowdown.mean is None
    assert not slowdown.surely_above(1.0)


def test_a_mean_is_judged_by_its_error() -> None:
    """200 pulses, half 0.9 and half 1.1: mean 1, deviation 0.1, error 0.1 / sqrt(200) = 0.00707; 2.33 are 0.0165."""
    slowdown = of(0.9, 1.1, times=100)
    assert slowdown.mean == pytest.approx(1.0)
    assert (slowdown.surely_above(0.9836), slowdown.surely_above(0.9834)) == (False, True)


def test_the_error_of_what_is_expected_does_not_go_away_with_more_pulses() -> None:
    """As above, and 0.01 of the mean of 1 in all of them: sqrt(0.00707 ** 2 + 0.01 ** 2) = 0.01225; 2.33 are 0.0285."""
    slowdown = of(0.9, 1.1, times=100, error=0.01)
    assert (slowdown.surely_above(0.9716), slowdown.surely_above(0.9714)) == (False, True)


def test_one_long_step_decides_nothing() -> None:
    """It counts as 3: (99 + 3) / 100 = 1.02."""
    slowdown = of(1.0, times=99)
    slowdown.add(500.0, 0.0)
    assert slowdown.mean == pytest.approx(1.02)


def test_the_present_counts_more_than_the_past() -> None:
    """601 of 1.0 weigh 300.5; 299 more of 2.0 bring the mean to nearly 1.5, where all alike would give 1.33."""
    slowdown = of(1.0, times=601)
    for _ in range(299):
        slowdown.add(2.0, 0.0)
    assert slowdown.mean == pytest.approx((300.5 + 2 * 299) / 599.5)


def test_another_pace_begins_anew() -> None:
    """Nothing is known of it."""
    slowdown = of(1.0, times=50)
    slowdown.restart(7.0)
    assert (slowdown.mean, slowdown.since_s) == (None, 7.0)
