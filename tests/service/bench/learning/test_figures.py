"""Figures of exams: means, changes and intervals, by hand."""

import pytest

from service.bench.learning.exam import Graded
from service.bench.learning.figures import ALL, Change, by_language, changes, figures, paired_change, smoothed


def graded(prompt: int, reward: float | None, language: str = "de", **parts: float) -> Graded:
    return Graded(prompt, language, "create", reward, parts, num_tokens=10, truncated=prompt == 0)


def test_figures_are_means_over_the_replies_that_have_them() -> None:
    """Rewards 0.2 and 0.6 average to 0.4, the ungradable third is 1 of 3; fidelity stands on two replies."""
    found = figures([graded(0, 0.2, fidelity=0.5), graded(1, 0.6, fidelity=1.0), graded(2, None)])
    assert found["reward"] == pytest.approx(0.4)
    assert found["fidelity"] == pytest.approx(0.75)
    assert found["ungradable"] == pytest.approx(1 / 3)
    assert found["truncated"] == pytest.approx(1 / 3)
    assert found["tokens"] == 10
    assert "fluency" not in found


def test_each_language_has_figures_of_its_own() -> None:
    """All is the mean over replies, not over languages: (0.0 + 0.5 + 1.0) / 3."""
    found = by_language([graded(0, 0.0), graded(1, 0.5, "pl"), graded(2, 1.0, "pl")])
    assert list(found) == [ALL, "de", "pl"]
    assert found[ALL]["reward"] == pytest.approx(0.5)
    assert found["pl"]["reward"] == pytest.approx(0.75)


def test_changes_are_of_what_both_sides_have() -> None:
    """Prompt 1 stopped being gradable, and Polish is on one side only: the reward's change is that of prompt 0, the
    mean of whose replies went from 0.3 to 0.5; the mean of all that is left would have fallen from 0.5."""
    before = [graded(0, 0.2, length=1.0), graded(0, 0.4), graded(1, 0.9), graded(2, 0.1, "pl")]
    after = [graded(0, 0.5), graded(1, None)]
    found = {(change.language, change.metric): change for change in changes(7, before, after)}
    assert found[ALL, "reward"].before == pytest.approx(0.3)
    assert found[ALL, "reward"].after == 0.5
    assert found["de", "reward"].delta == pytest.approx(0.2)
    assert found["de", "ungradable"] == Change(7, "de", "ungradable", 0.0, 0.5)
    assert (ALL, "length") not in found
    assert {language for language, _ in found} == {ALL, "de"}


def test_a_change_is_paired_by_prompt() -> None:
    """Prompt 0 went from mean(0.2, 0.4) = 0.3 to 0.5, prompt 1 from 0.6 to 0.6: +0.1 on average. Prompt 2 has no pair.

    The bootstrap draws two prompts of two: its means are 0.0, 0.1 and 0.2, the extremes with 1/4 each.
    """
    before = [graded(0, 0.2), graded(0, 0.4), graded(1, 0.6), graded(2, 0.9)]
    after = [graded(0, 0.5), graded(1, 0.6), graded(2, None)]
    change = paired_change(before, after, "reward")
    assert change is not None
    assert change.mean == pytest.approx(0.1)
    assert change.low == pytest.approx(0.0)
    assert change.high == pytest.approx(0.2)
    assert paired_change(before, [], "reward") is None


def test_smoothing_looks_back_only() -> None:
    """Window 2 over 1, 3, 5: 1, (1 + 3) / 2, (3 + 5) / 2."""
    assert smoothed([1.0, 3.0, 5.0], 2) == [1.0, 2.0, 4.0]
