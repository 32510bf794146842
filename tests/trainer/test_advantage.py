"""Group-relative advantages against values worked out by hand."""

import math

import pytest
import torch

from trainer.advantage import AdvantageScale, group_advantages, has_spread


def test_unscaled_advantages_are_the_centred_rewards() -> None:
    """Rewards 1, 2, 6 have mean 3."""
    assert group_advantages([1.0, 2.0, 6.0], "none") == [-2.0, -1.0, 3.0]


def test_scaled_advantages_are_divided_by_the_sample_deviation() -> None:
    """Rewards 1, 2, 6: squares 4 + 1 + 9 = 14 over 3 - 1 make a deviation of sqrt(7), plus 1e-4."""
    scale = math.sqrt(7) + 1e-4
    assert group_advantages([1.0, 2.0, 6.0], "group") == pytest.approx([-2 / scale, -1 / scale, 3 / scale])


@pytest.mark.parametrize("scale", ["none", "group"])
def test_advantages_of_a_group_sum_to_zero(scale: AdvantageScale) -> None:
    """What one sibling gains the others lose."""
    assert sum(group_advantages([0.31, 0.77, 0.5, -0.2], scale)) == pytest.approx(0, abs=1e-12)


def test_scaled_advantages_are_those_of_trl() -> None:
    """TRL's GRPOTrainer: (rewards - mean) / (rewards.std() + 1e-4), with torch's unbiased deviation."""
    rewards = torch.tensor([0.1, 0.9, 0.4, 0.4], dtype=torch.float64)
    expected = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    assert group_advantages(rewards.tolist(), "group") == pytest.approx(expected.tolist(), rel=1e-12)


def test_equal_rewards_have_no_advantage() -> None:
    """The floor of the deviation keeps 0 / 0 away."""
    assert group_advantages([0.5, 0.5], "group") == [0.0, 0.0]


def test_a_group_of_one_has_no_advantage() -> None:
    """It is an error, not zero: there is nothing to compare with."""
    with pytest.raises(ValueError, match="at least 2 siblings, got 1"):
        group_advantages([1.0], "none")


def test_spread_is_a_difference_between_siblings() -> None:
    """Differences below a millionth are rounding."""
    assert has_spread([0.1, 0.2])
    assert not has_spread([0.1, 0.1 + 1e-9])
