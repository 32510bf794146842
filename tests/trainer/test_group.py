"""Which completions are trained on, and what the others are counted as."""

import math
from collections import Counter
from dataclasses import replace

import pytest

from agent.completion import Completion, FinishReason, Sampling
from rewards.score import Score, Ungradable
from tests.trainer.samples import brief, completion
from trainer.group import Fitness, Group, TrainingSequence, teaching, training_sequences, untruncated
from trainer.lineage import Lineage

BAD = Ungradable("a parse failure", "fake@1")


def _sequences(
    *pairs: tuple[Completion, float | Ungradable], version: int = 0
) -> tuple[list[TrainingSequence], Counter[str]]:
    scores = tuple(Score(value, "fake@1") if isinstance(value, float) else value for _, value in pairs)
    group = Group(brief(), tuple(sampled for sampled, _ in pairs), scores)
    taught, dropped = teaching(group, Fitness(Lineage(version), max_staleness=2, temperature=1.0))
    return training_sequences([taught] if taught else [], "none"), dropped


def test_each_sibling_gets_its_advantage() -> None:
    """Scores 1 and 0 have mean 0.5; the language is the brief's."""
    first, second = completion((1,)), completion((2,))
    sequences, dropped = _sequences((first, 1.0), (second, 0.0))
    assert sequences == [TrainingSequence(first, 0.5, "de"), TrainingSequence(second, -0.5, "de")]
    assert +dropped == Counter()


@pytest.mark.parametrize(
    ("unfit", "score", "reason"),
    [
        (completion(version=5), BAD, "ungradable"),
        (completion(version=2), 1.0, "stale"),
        (completion(version=6), 1.0, "unknown_version"),
        (completion(version=5, sampling=Sampling(16, top_p=0.9)), 1.0, "top_p"),
        (completion(version=5, sampling=Sampling(16, top_k=40)), 1.0, "top_k"),
        (completion(version=5, sampling=Sampling(16, min_p=0.1)), 1.0, "min_p"),
        (completion(version=5, sampling=Sampling(16, frequency_penalty=0.5)), 1.0, "penalties"),
        (completion(version=5, sampling=Sampling(16, temperature=0.0)), 1.0, "greedy"),
        (completion(version=5, sampling=Sampling(16, temperature=0.7)), 1.0, "other_temperature"),
        (completion((), version=5), 1.0, "empty"),
        (replace(completion((1, 2), version=5), logprobs=(-0.5, math.nan)), 1.0, "not_finite"),
    ],
)
def test_an_unfit_sibling_is_counted_and_left_out_of_the_mean(
    unfit: Completion, score: float | Ungradable, reason: str
) -> None:
    """The other two keep mean (0.2 + 0.6) / 2 = 0.4 as if it had never been sampled."""
    fit = completion(version=5)
    sequences, dropped = _sequences((fit, 0.2), (unfit, score), (fit, 0.6), version=5)
    assert [sequence.advantage for sequence in sequences] == pytest.approx([-0.2, 0.2])
    assert +dropped == Counter({reason: 1})


def test_staleness_counts_from_the_oldest_token() -> None:
    """Two versions old is allowed with max_staleness 2, three is not."""
    pairs = [(completion(version=version), float(version)) for version in (3, 4, 2)]
    sequences, dropped = _sequences(*pairs, version=5)
    assert [sequence.completion.versions.first for sequence in sequences] == [3, 4]
    assert +dropped == Counter(stale=1)


def test_a_sibling_that_is_left_alone_is_dropped() -> None:
    """One of two could not be graded: the other is counted as single."""
    sequences, dropped = _sequences((completion(), 1.0), (completion(), BAD))
    assert sequences == []
    assert +dropped == Counter(ungradable=1, single=1)


def test_siblings_that_scored_alike_are_dropped() -> None:
    """All three are counted."""
    sequences, dropped = _sequences(*[(completion(), 0.7)] * 3)
    assert sequences == []
    assert +dropped == Counter(no_spread=3)


def test_advantages_of_a_batch_are_scaled_together() -> None:
    """Two groups of Polish and one of German: the rewards 0, 1, 0, 3 pool, and 0, 2 do not.

    Polish: mean 1, squares 1 + 0 + 1 + 4 = 6 over 3, deviation sqrt(2). German: mean 1, squares 2 over 1, sqrt(2) too.
    """
    groups = [
        Group(brief(language), (completion(), completion()), (Score(0.0, "fake@1"), Score(high, "fake@1")))
        for language, high in (("pl", 1.0), ("de", 2.0), ("pl", 3.0))
    ]
    sequences = training_sequences(groups, "language")
    root = 2**0.5 + 1e-4
    assert [sequence.advantage for sequence in sequences] == pytest.approx(
        [-0.5 / root, 0.5 / root, -1 / root, 1 / root, -1.5 / root, 1.5 / root]
    )
    assert [sequence.language for sequence in sequences] == ["pl", "pl", "de", "de", "pl", "pl"]


def test_truncated_replies_can_be_told() -> None:
    """Those that ended at their token limit; the others keep their order and their advantages."""
    whole, cut = completion((1,)), replace(completion((2,)), finish_reason=FinishReason.LENGTH)
    sequences, _ = _sequences((whole, 1.0), (cut, 0.0), (whole, 0.5))
    assert untruncated(sequences) == [TrainingSequence(whole, 0.5, "de"), TrainingSequence(whole, 0.0, "de")]


def test_scores_and_completions_must_agree_in_number() -> None:
    """A shifted list of scores would reward the wrong replies."""
    with pytest.raises(ValueError, match="got 2, 1"):
        Group(brief(), (completion(), completion()), (BAD,))
