"""The gate of reward models, by hand."""

import math

import pytest

from rewards.training.comparison import compare, sign_test
from rewards.training.scored import ScoredPair
from tests.rewards.training.scored_pairs import pair


def pairs(margins: dict[str, list[float]]) -> list[ScoredPair]:
    """Pairs of prompts by their margins."""
    return [pair(margin, prompt=prompt) for prompt, values in margins.items() for margin in values]


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"),
    [
        (0, 0, 1.0),
        (5, 0, 1 / 32),
        (4, 1, 6 / 32),  # (C(5,4) + C(5,5)) / 2^5
        (1, 1, 3 / 4),  # (C(2,1) + C(2,2)) / 2^2
        (0, 7, 1.0),
        (3000, 0, 0.0),  # 2^-3000 is below what a float holds
    ],
)
def test_the_sign_test_is_exact(wins: int, losses: int, p_value: float) -> None:
    """P(X >= wins) of a fair coin."""
    assert sign_test(wins, losses) == pytest.approx(p_value)


def test_many_votes_are_counted_in_whole_numbers() -> None:
    """1100 of 2000 is 4.47 deviations of sqrt(500) above 1000 (4.45 with the continuity correction): p near 4e-6."""
    assert sign_test(1100, 900) == pytest.approx(4.3e-6, rel=0.05)


def test_a_better_candidate_is_accepted() -> None:
    """Five prompts of six that only the candidate ranks right: wins 5, losses 0, p = 1/32."""
    prompts = [str(number) for number in range(6)]
    candidate = pairs({prompt: [1.0] for prompt in prompts})
    baseline = pairs({prompt: [-1.0] for prompt in prompts[:5]} | {prompts[5]: [0.5]})
    verdict = compare(candidate, baseline, baseline_version=4, significance=0.05)
    assert (verdict.accepted, verdict.wins, verdict.losses, verdict.p_value) == (True, 5, 0, 1 / 32)
    assert verdict.reason == (
        "it ranks 5 held-out prompts better than version 4 and 0 worse: p = 0.03125, is accepted at p <= 0.05"
    )


def test_an_equal_or_a_worse_candidate_is_rejected() -> None:
    """Whatever their margins: what counts is what is ranked right."""
    right, wrong = pairs({"a": [1.0], "b": [1.0]}), pairs({"a": [-1.0], "b": [3.0]})
    equal = compare(right, pairs({"a": [9.0], "b": [0.1]}), baseline_version=1, significance=0.05)
    assert (equal.accepted, equal.p_value) == (False, 1.0)
    worse = compare(wrong, right, baseline_version=1, significance=0.05)
    assert (worse.accepted, worse.wins, worse.losses, worse.p_value) == (False, 0, 1, 1.0)
    assert worse.reason == (
        "it ranks 0 held-out prompts better than version 1 and 1 worse: p = 1, needs p <= 0.05 to be accepted"
    )


def test_a_prompt_has_one_vote() -> None:
    """A prompt of a hundred pairs counts as one: 1 win and 1 loss, p = 3/4."""
    candidate = pairs({"a": [1.0] * 100, "b": [-1.0]})
    baseline = pairs({"a": [-1.0] * 100, "b": [1.0]})
    verdict = compare(candidate, baseline, baseline_version=1, significance=0.05)
    assert (verdict.wins, verdict.losses, verdict.p_value) == (1, 1, 0.75)


def test_the_first_model_must_beat_chance() -> None:
    """Half of a prompt's pairs ranked right is a tie with the coin; five prompts won are p = 1/32."""
    candidate = pairs({str(number): [1.0] for number in range(5)} | {"even": [1.0, -1.0]})
    verdict = compare(candidate, None, baseline_version=None, significance=0.05)
    assert (verdict.accepted, verdict.wins, verdict.losses, verdict.baseline) == (True, 5, 0, None)
    assert "better than chance" in verdict.reason
    assert not compare(candidate, None, baseline_version=None, significance=0.03).accepted


def test_models_are_compared_on_the_same_prompts() -> None:
    """Anything else is no comparison."""
    with pytest.raises(ValueError, match="same prompts"):
        compare(pairs({"a": [1.0]}), pairs({"b": [1.0]}), baseline_version=1, significance=0.05)


@pytest.mark.parametrize("num_votes", [1, 5, 8, 30, 200])
def test_an_equally_good_candidate_is_accepted_five_times_in_a_hundred_at_most(num_votes: int) -> None:
    """Where each vote is a fair coin's: the sum of the chances of all counts of wins that would be accepted."""
    chances = [math.comb(num_votes, wins) / (1 << num_votes) for wins in range(num_votes + 1)]
    accepted = [wins for wins in range(num_votes + 1) if sign_test(wins, num_votes - wins) <= 0.05]
    assert sum(chances[wins] for wins in accepted) <= 0.05
    assert bool(accepted) == (num_votes >= 5)  # 2^-5 is the first power of 1/2 below 0.05
