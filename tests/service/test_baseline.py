"""What live requests get without tuning, by load."""

import pytest

from service.baseline import Baselines, bucket
from service.slo import Quantity


def test_buckets_halve_each_doubling() -> None:
    """1, 1.41, 2, 2.83, 4 …: 16 begins bucket 8, 22.6 bucket 9, 32 bucket 10; less than one counts as one."""
    assert [bucket(load) for load in (0, 1, 2, 16, 22, 23, 31, 32)] == [0, 0, 2, 8, 8, 9, 9, 10]


def test_there_is_none_before_there_are_enough() -> None:
    """Forty requests, or five pulses, of one bucket."""
    baselines = Baselines()
    for number in range(40):
        assert baselines.at(Quantity.TTFT, 20) is None
        baselines.add(Quantity.TTFT, 20, 0.01 * (number + 1), now_s=0.0)
    found = baselines.at(Quantity.TTFT, 20)
    assert found is not None
    assert found.value_s == pytest.approx(0.40)  # nearest rank: ceil(0.99 * 40) = 40
    assert baselines.at(Quantity.INTER_TOKEN, 20) is None


def test_pulses_have_a_median_and_a_spread() -> None:
    """Median of 1, 2, 3, 4, 10 is 3; deviations 2, 1, 0, 1, 7 have the median 1: 1.4826 standard deviations."""
    baselines = Baselines()
    for value in (1.0, 2.0, 3.0, 4.0, 10.0):
        baselines.add(Quantity.ENGINE_STEP, 8, value, now_s=0.0)
    found = baselines.at(Quantity.ENGINE_STEP, 8)
    assert found is not None
    assert [found.value_s, found.spread_s] == pytest.approx([3.0, 1.4826])


def test_loads_between_two_buckets_get_a_value_between_theirs() -> None:
    """6 ms at 10 and 9 ms at 40: a third of the way, at 20, it is 7 ms; outside, the nearest holds."""
    baselines = Baselines()
    for load, value in ((10.0, 0.006), (40.0, 0.009)):
        for _ in range(5):
            baselines.add(Quantity.ENGINE_STEP, load, value, now_s=0.0)
    values = []
    for load in (1.0, 10.0, 20.0, 40.0, 100.0):
        found = baselines.at(Quantity.ENGINE_STEP, load)
        assert found is not None
        values.append(found.value_s)
    assert values == pytest.approx([0.006, 0.006, 0.007, 0.009, 0.009])


def test_old_measurements_go() -> None:
    """After a quarter of an hour a measurement says nothing any more."""
    baselines = Baselines()
    for _ in range(5):
        baselines.add(Quantity.ENGINE_STEP, 8, 1.0, now_s=0.0)
    for _ in range(5):
        baselines.add(Quantity.ENGINE_STEP, 8, 2.0, now_s=901.0)
    found = baselines.at(Quantity.ENGINE_STEP, 8)
    assert found is not None
    assert (found.value_s, found.spread_s) == (2.0, 0.0)
