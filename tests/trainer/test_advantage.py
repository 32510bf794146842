"""Group-relative advantages against values worked out by hand."""

import math

import pytest

from trainer.advantage import advantages, has_spread
from trainer.objective_settings import AdvantageScale


def test_unscaled_advantages_are_the_centred_rewards() -> None:
    """Rewards 1, 2, 6 have mean 3; 0 and 4 have mean 2."""
    assert advantages([[1.0, 2.0, 6.0], [0.0, 4.0]], ["de", "pl"], "none") == [[-2.0, -1.0, 3.0], [-2.0, 2.0]]


def test_scaled_advantages_are_divided_by_the_group_s_sample_deviation() -> None:
    """Rewards 1, 2, 6: squares 4 + 1 + 9 = 14 over 3 - 1 make a deviation of sqrt(7); 0 and 4: 8 over 1, sqrt(8)."""
    found = advantages([[1.0, 2.0, 6.0], [0.0, 4.0]], ["de", "de"], "group")
    one, other = math.sqrt(7) + 1e-4, math.sqrt(8) + 1e-4
    assert found == [pytest.approx([-2 / one, -1 / one, 3 / one]), pytest.approx([-2 / other, 2 / other])]


def test_the_batch_s_deviation_keeps_the_groups_proportions() -> None:
    """Rewards 0, 2, 0, 6 have mean 2: squares 4 + 0 + 4 + 16 = 24 over 3, sqrt(8); each is centred by its group."""
    found = advantages([[0.0, 2.0], [0.0, 6.0]], ["de", "pl"], "batch")
    scale = math.sqrt(8) + 1e-4
    assert found == [pytest.approx([-1 / scale, 1 / scale]), pytest.approx([-3 / scale, 3 / scale])]


def test_a_language_s_deviation_takes_its_judge_s_scale_away() -> None:
    """The Polish judge scores as the German one does, times ten: the advantages are the same, but for the floor.

    German: 0, 2, 0, 6 as above, sqrt(8). Polish: ten times that.
    """
    german, polish = [[0.0, 2.0], [0.0, 6.0]], [[0.0, 20.0], [0.0, 60.0]]
    found = advantages([german[0], polish[0], german[1], polish[1]], ["de", "pl", "de", "pl"], "language")
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[2] == pytest.approx(found[3], rel=1e-4)
    assert found[2] == pytest.approx([-3 / (math.sqrt(8) + 1e-4), 3 / (math.sqrt(8) + 1e-4)])


def test_centring_takes_an_offset_away_and_not_a_scale() -> None:
    """A judge that is 5 kinder changes nothing; one that spreads ten times as wide pulls ten times as hard."""
    plain, kinder, wider = advantages([[0.0, 2.0], [5.0, 7.0], [0.0, 20.0]], ["de", "pl", "fr"], "none")
    assert plain == kinder
    assert wider == [10 * value for value in plain]


@pytest.mark.parametrize("scale", ["none", "group", "batch", "language"])
def test_advantages_of_a_group_sum_to_zero(scale: AdvantageScale) -> None:
    """What one sibling gains the others lose."""
    for group in advantages([[0.31, 0.77, 0.5, -0.2], [0.1, 0.9]], ["de", "de"], scale):
        assert sum(group) == pytest.approx(0, abs=1e-12)


def test_equal_rewards_have_no_advantage() -> None:
    """The floor of the deviation keeps 0 / 0 away."""
    assert advantages([[0.5, 0.5]], ["de"], "group") == [[0.0, 0.0]]


def test_a_batch_without_groups_has_no_advantages() -> None:
    """A draw may leave nothing to train on."""
    assert advantages([], [], "batch") == []


def test_a_group_of_one_has_no_advantage() -> None:
    """It is an error, not zero: there is nothing to compare with."""
    with pytest.raises(ValueError, match="at least 2 siblings, got 1"):
        advantages([[1.0]], ["de"], "none")


def test_spread_is_a_difference_between_siblings() -> None:
    """Differences below a millionth are rounding."""
    assert has_spread([0.1, 0.2])
    assert not has_spread([0.1, 0.1 + 1e-9])
