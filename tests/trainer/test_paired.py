"""Intervals and chances of paired differences."""

import numpy as np
import pytest

from trainer.paired import bootstrap, chances, lower_bound, prompts_needed


def test_an_interval_of_equal_differences_has_no_width() -> None:
    """Whatever is drawn from three times 0.25 has the mean 0.25."""
    interval = bootstrap(np.array([0.25, 0.25, 0.25]), confidence=0.95, seed=0)
    assert (interval.mean, interval.low, interval.high) == (0.25, 0.25, 0.25)


def test_an_interval_is_as_wide_as_the_mean_varies() -> None:
    """100 differences of -1 or 1, half each: the mean's deviation is 1 / sqrt(100) = 0.1, so 95 % lie within 0.196."""
    differences = np.array([-1.0, 1.0] * 50)
    interval = bootstrap(differences, confidence=0.95, seed=0)
    assert interval.mean == 0.0
    assert [interval.low, interval.high] == pytest.approx([-0.196, 0.196], abs=0.03)


def test_a_lower_bound_weighs_groups_alike() -> None:
    """Means 1 and 0 without any variance: 0.5, although the second group has three times the prompts."""
    assert lower_bound([np.ones(2), np.zeros(6)], level=0.05, seed=0) == 0.5


def test_the_chance_of_falls_alone_is_that_of_a_coin() -> None:
    """Five falls of five: of 2^5 = 32 ways to swap pairs one looks as bad, so the chance is 1/32 = 0.031."""
    ((chance,),) = chances([-np.ones((5, 1))], seed=0)
    assert chance == pytest.approx(1 / 32, abs=0.01)


def test_what_rose_is_never_by_chance_a_fall() -> None:
    """A rise and no change have chance 1."""
    ((rise, same),) = chances([np.array([[0.5, 0.0]] * 4)], seed=0)
    assert (rise, same) == (1.0, 1.0)


def test_the_chance_counts_all_columns_and_sheets() -> None:
    """Five falls of five in one of four independent sheets: 1 - (31/32)^4 = 0.119 that any of them looks as bad."""
    rng = np.random.default_rng(0)
    others = [rng.choice([-1.0, 1.0], size=(5, 1)) for _ in range(3)]
    chance = chances([-np.ones((5, 1)), *others], seed=0)[0][0]
    assert chance == pytest.approx(0.119, abs=0.02)


def test_columns_that_say_the_same_count_once() -> None:
    """Three copies of one column have its chance, 1/32, not three times that: pairs are swapped whole."""
    (row,) = chances([-np.ones((5, 3))], seed=0)
    assert row.tolist() == pytest.approx([1 / 32] * 3, abs=0.01)


def test_a_pair_without_a_value_counts_for_nothing() -> None:
    """Five falls and five gaps are five falls."""
    with_gaps = np.array([[-1.0]] * 5 + [[np.nan]] * 5)
    ((chance,),) = chances([with_gaps], seed=0)
    assert chance == pytest.approx(1 / 32, abs=0.01)


def test_a_sheet_without_pairs_has_no_say() -> None:
    """A language without replies changes no chance of others, and has chance 1 itself."""
    empty, (chance,) = chances([np.empty((0, 2)), -np.ones((5, 1))], seed=0)
    assert empty.tolist() == [1.0, 1.0]
    assert chance == pytest.approx(1 / 32, abs=0.01)


def test_equal_policies_are_seldom_found_worse() -> None:
    """Skewed differences with gaps in 3 sheets of 4 columns, 400 times: at most 5 % have any chance of 0.05 or less.

    Two standard deviations of 5 % over 400 are 2.2 %.
    """
    rng = np.random.default_rng(1)
    alarms = 0
    for trial in range(400):
        ours, theirs = (rng.exponential(size=(3, 9, 4)) for _ in range(2))
        ours[rng.random(ours.shape) < 0.2] = np.nan
        found = chances(list(ours - theirs), seed=trial)
        alarms += min(float(row.min()) for row in found) <= 0.05
    assert alarms / 400 <= 0.05 + 0.022


def test_more_prompts_are_needed_for_a_smaller_margin() -> None:
    """Deviation 0.1, margin 0.05: ((1.960 + 0.842) * 0.1 / 0.05)^2 = 31.4, so 32; for twice the margin a quarter."""
    differences = np.array([-0.1, 0.1] * 500) * np.sqrt(999 / 1000)
    assert prompts_needed(differences, margin=0.05, confidence=0.95, least=1) == 32
    assert prompts_needed(differences, margin=0.1, confidence=0.95, least=1) == 8
    assert prompts_needed(differences, margin=0.1, confidence=0.95, least=12) == 12
