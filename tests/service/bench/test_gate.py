"""Rates of the gate, on scripted policies with the product's panel, detectors and statistics."""

import pytest

from service.bench.gate import PLANTED, GateTrials, Rate
from trainer.config import GateConfig
from trainer.gate_records import GateVerdict

LANGUAGES = ("de", "ja", "pl")


@pytest.fixture(scope="module")
def trials() -> GateTrials:
    """Three languages, eight prompts of each, answered twice."""
    return GateTrials(GateConfig(num_prompts=8, num_replies=16), LANGUAGES)


async def test_polish_in_english_is_stopped_every_time(trials: GateTrials) -> None:
    """Each of five candidates fails in Polish, by language and by reward, and nowhere else but by the chance of one in
    twenty that each of them has: more than one that also fails elsewhere comes 2 times of a hundred.
    """
    elsewhere = 0
    for trial in range(5):
        report = (await trials.compare(trial, 1.0)).report
        assert report is not None
        assert report.verdict is GateVerdict.FAILED
        assert "language fidelity fell" in report.failed[PLANTED]
        elsewhere += len(report.failed) > 1
    assert elsewhere <= 1


async def test_an_equal_candidate_is_seldom_blocked(trials: GateTrials) -> None:
    """At a false alarm rate of 5 % four alarms of 15 or more come once in a thousand times."""
    outcomes = await trials.outcomes(0.0, 15)
    assert outcomes.failed.hits <= 3
    assert outcomes.published.hits == 15 - outcomes.failed.hits


async def test_replies_follow_from_the_trial(trials: GateTrials) -> None:
    """The same trial gives the same evaluation, another one gives another."""
    assert await trials.compare(1, 0.0) == await trials.compare(1, 0.0)
    assert await trials.compare(1, 0.0) != await trials.compare(2, 0.0)


def test_a_rate_has_a_wilson_interval() -> None:
    """20 of 20: from 20 / (20 + 1.96^2) = 0.839 to 1. 10 of 200: 2.7 % to 9.0 %, as tables of the method have it."""
    assert Rate(20, 20).bounds == pytest.approx((0.839, 1.0), abs=0.001)
    assert Rate(10, 200).bounds == pytest.approx((0.0274, 0.0896), abs=0.001)
    assert str(Rate(10, 200)) == "10/200 = 5.0% (2.7% to 9.0%)"
