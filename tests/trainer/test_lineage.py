"""How many optimizer steps old a completion is, whatever numbers its policies have."""

from agent.completion import VersionSpan
from trainer.lineage import Lineage


def test_staleness_counts_steps_from_the_oldest_token() -> None:
    """Three steps of a run that began with 3 made 4, 5 and 6: a token of 3 is three steps old, one of 5 one."""
    lineage = Lineage(3).with_step(4).with_step(5).with_step(6)
    assert lineage.version == 6
    assert lineage.staleness(VersionSpan(3, 5)) == 3
    assert lineage.staleness(VersionSpan(5, 6)) == 1
    assert lineage.staleness(VersionSpan(6, 6)) == 0


def test_numbers_that_no_step_of_the_run_made_are_no_steps() -> None:
    """4 to 8 were given up by an earlier run, and the step that took 11 was interrupted. What 11 served meanwhile (by
    method `full` every step goes live) is as old as what 10 served."""
    lineage = Lineage(3, (9, 10, 12))
    assert lineage.staleness(VersionSpan(3, 3)) == 3
    assert lineage.staleness(VersionSpan(10, 10)) == 1
    assert lineage.staleness(VersionSpan(11, 11)) == 1


def test_what_came_before_the_run_is_older_by_its_number() -> None:
    """The run began with 5 and has taken one step: what 2 sampled is 5 - 2 + 1 = 4 steps old."""
    assert Lineage(5, (6,)).staleness(VersionSpan(2, 2)) == 4


def test_a_version_that_is_newer_than_the_policy_is_no_ancestor_of_it() -> None:
    """After a rollback from 5 to 4, what 5 sampled has no staleness: not -1, which would pass any bound."""
    assert Lineage(4).staleness(VersionSpan(5, 5)) is None
    assert Lineage(4).staleness(VersionSpan(3, 5)) is None
