"""Which pairs train, which are held out, and when there are too few."""

from pathlib import Path

import pytest

from agent.errors import TooFewPairs
from rewards.training.pair_file import read_pairs, write_pairs
from rewards.training.selection import PairSelection
from rewards.training.settings import Minimum
from tests.planted_pairs import planted_pairs


def test_enough_pairs_pass() -> None:
    """At the minimum itself there are enough."""
    PairSelection.of(planted_pairs(6, 4)).require("de", Minimum(training=6, held_out=4))


def test_too_few_pairs_are_refused_with_counts_and_sources() -> None:
    """4 training pairs are 2 edits, 1 comparison, 1 rating; what there is enough of is not mentioned."""
    selection = PairSelection.of(planted_pairs(4, 4))
    with pytest.raises(TooFewPairs) as refused:
        selection.require("de", Minimum(training=5, held_out=4))
    assert str(refused.value) == (
        "a reward model for de needs at least 5 training pairs (rewards.training.min_pairs), "
        "got 4 (comparison 1, edit 2, rating 1)"
    )


def test_no_pair_at_all_is_told_for_both() -> None:
    """A language without feedback."""
    with pytest.raises(TooFewPairs) as refused:
        PairSelection.of([]).require("pl", Minimum(training=100, held_out=30))
    assert str(refused.value) == (
        "a reward model for pl needs at least 100 training pairs (rewards.training.min_pairs), got 0 and "
        "at least 30 held-out pairs (rewards.training.min_held_out), got 0"
    )


def test_pairs_survive_their_file_which_is_their_owners_alone(tmp_path: Path) -> None:
    """Every field; mode 0600, since people's texts are in it."""
    path = tmp_path / "pairs.jsonl"
    pairs = planted_pairs(2, 1)
    write_pairs(path, pairs)
    assert read_pairs(path) == pairs
    assert path.stat().st_mode & 0o777 == 0o600
