"""The running mean of requests' slowdown, and what it may be taken for."""

import pytest

from service.slowdown import Slowdown


def of(*ratios: float, times: int = 1) -> Slowdown:
    slowdown = Slowdown()
    for ratio in ratios * times:
        slowdown.add(ratio)
    return slowdown


def test_too_few_requests_say_nothing() -> None:
    """39 of them."""
    slowdown = of(2.0, times=39)
    assert slowdown.mean is None
    assert not slowdown.surely_above(1.0)
    assert not slowdown.surely_below(3.0)


def test_a_mean_is_judged_by_its_error() -> None:
    """200 requests, half 0.9 and half 1.1: mean 1, deviation 0.1, error 0.1 / sqrt(200) = 0.00707; 2.33 are 0.0165."""
    slowdown = of(0.9, 1.1, times=100)
    assert slowdown.mean == pytest.approx(1.0)
    assert (slowdown.surely_below(1.0164), slowdown.surely_below(1.0166)) == (False, True)
    assert (slowdown.surely_above(0.9836), slowdown.surely_above(0.9834)) == (False, True)


def test_one_request_that_waited_decides_nothing() -> None:
    """It counts as 3: (99 + 3) / 100 = 1.02."""
    slowdown = of(1.0, times=99)
    slowdown.add(500.0)
    assert slowdown.mean == pytest.approx(1.02)


def test_the_present_counts_more_than_the_past() -> None:
    """2001 of 1.0 weigh 1000.5; 999.5 more of 2.0 bring the mean to nearly 1.5, where all alike would give 1.33."""
    slowdown = of(1.0, times=2001)
    for _ in range(999):
        slowdown.add(2.0)
    assert slowdown.mean == pytest.approx((1000.5 + 2 * 999) / 1999.5)


def test_another_pace_begins_anew() -> None:
    """Nothing is known of it."""
    slowdown = of(1.0, times=50)
    slowdown.restart(7.0)
    assert (slowdown.mean, slowdown.since_s) == (None, 7.0)
