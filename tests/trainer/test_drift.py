"""How far a candidate moved on logged replies."""

import math

import pytest

from tests.trainer.samples import completion, episode
from trainer.drift import Recital, drift, recite, recited
from trainer.fakes import FakeTrainer

POLISH = episode(1, "pl")


def test_equal_policies_have_not_moved() -> None:
    """Every ratio is 1, and 1 - 1 - log 1 = 0."""
    same = Recital({POLISH.id: (-0.5, -1.0, -1.5)})
    row = drift([POLISH], same, same)["pl"]
    assert (row.kl, row.num_tokens) == (0.0, 3)
    assert (row.logprob, row.baseline_logprob) == (-1.0, -1.0)


def test_the_divergence_is_k3() -> None:
    """Ratios 1/2 and 2: ((0.5 - 1 + ln 2) + (2 - 1 - ln 2)) / 2 = 0.25."""
    half, double = -1.0 - math.log(2), -1.0 + math.log(2)
    row = drift([POLISH], Recital({POLISH.id: (half, double)}), Recital({POLISH.id: (-1.0, -1.0)}))["pl"]
    assert row.kl == pytest.approx(0.25)


def test_a_token_that_became_sure_stays_a_number() -> None:
    """e^1000 would not be one; the ratio is held at e^20."""
    row = drift([POLISH], Recital({POLISH.id: (0.0,)}), Recital({POLISH.id: (-1000.0,)}))["pl"]
    assert row.kl == pytest.approx(math.exp(20) - 21)


def test_a_reply_that_changed_is_left_out() -> None:
    """Two tokens then and three now are not the same reply."""
    assert drift([POLISH], Recital({POLISH.id: (-1.0,) * 3}), Recital({POLISH.id: (-1.0,) * 2})) == {}


def test_a_few_replies_of_each_language_are_scored() -> None:
    """Four of six German ones, and the Polish one; a reply without tokens is passed over."""
    german = [episode(number) for number in range(1, 7)]
    silent = episode(8, "pl", siblings=(completion(()),))
    assert recited([*german, silent, POLISH]) == (*german[:4], POLISH)


async def test_the_learner_scores_what_was_served() -> None:
    """Three tokens each, at the fake's -0.25."""
    recital = await recite(FakeTrainer(logprob=-0.25), [POLISH])
    assert recital.logprobs == {"pl-1": (-0.25, -0.25, -0.25)}
