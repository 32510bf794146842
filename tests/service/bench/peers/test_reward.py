"""The reward of a comparison: a spread on any texts, at the cost of a real judgement."""

import pytest

from service.bench.peers.reward import PanelReward

TEXTS = (
    "The sea is wide and blue.",
    "The sea is cold and grey.",
    "fragak monove tipalu sike",
    "The sea is wide and blue.",
)


@pytest.fixture(scope="module")
def rewards() -> list[float]:
    return PanelReward()(completions=TEXTS, completion_ids=[[1] * 5] * len(TEXTS), trainer_state=None)


def test_different_texts_get_different_rewards(rewards: list[float]) -> None:
    """Text in no language at all too, so that no group is without a spread; equal texts are worth the same."""
    assert len(set(rewards[:3])) == 3
    assert rewards[3] == rewards[0]


def test_rewards_are_finite_shares(rewards: list[float]) -> None:
    """A weighted mean of parts in [0, 1] lies there too."""
    assert all(0 <= reward <= 1 for reward in rewards)
