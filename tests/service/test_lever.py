"""A setting on a ladder: down at once, up after a second of head-room, and not twice in a row into the same wall."""

import pytest

from service.lever import Lever, pace_ladder
from trainer.pace import Pace


def climb(lever: Lever, now_s: float) -> bool:
    """Ten ticks of head-room."""
    return [lever.rise(now_s) for _ in range(10)].count(True) > 0


def test_the_ladder_goes_from_paused_to_the_whole_device() -> None:
    """The smallest partition by duty, then larger ones, then the whole."""
    duties = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    assert pace_ladder((16, 80, 132)) == (*(Pace(16, duty) for duty in duties), Pace(80, 1.0), Pace(132, 1.0))
    assert pace_ladder((80, 132)) == (*(Pace(80, duty) for duty in duties), Pace(132, 1.0))


def test_a_device_that_is_one_partition_has_duties_of_it() -> None:
    """Its whole is what duties are of."""
    assert pace_ladder((132,)) == tuple(Pace(132, duty) for duty in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0))


def test_a_device_without_partitions_has_duties_only() -> None:
    """From 0 to 1, with no partition named."""
    assert pace_ladder(()) == tuple(Pace(0, duty) for duty in (0.0, 0.1, 0.25, 0.5, 0.75, 1.0))


def test_sizes_that_do_not_ascend_are_an_error() -> None:
    """The worker promises it; a ladder of anything else would step up to less."""
    with pytest.raises(ValueError, match="must ascend"):
        pace_ladder((80, 16))


def test_head_room_must_last() -> None:
    """Nine ticks are not enough, and one without head-room begins the count again."""
    lever = Lever(7)
    assert not any(lever.rise(1.0) for _ in range(9))
    lever.keep()
    assert not any(lever.rise(1.0) for _ in range(9))
    assert lever.rise(1.0)
    assert (lever.level, lever.since_s) == (4, 1.0)


def test_down_is_at_once_and_ends_at_the_bottom() -> None:
    """By as many rungs as told, never below paused."""
    lever = Lever(7)
    assert lever.lower(1.0, 2)
    assert lever.level == 1
    assert lever.lower(2.0, 2)
    assert lever.level == 0
    assert not lever.lower(3.0, 1)


def test_up_ends_at_the_top() -> None:
    """A lever at the top stays."""
    lever = Lever(3, start=2)
    assert not climb(lever, 1.0)
    assert lever.level == lever.top == 2


def test_a_rung_that_failed_is_barred_twice_as_long_each_time() -> None:
    """4 s, then 8 s."""
    lever = Lever(7)
    lever.lower(10.0, 1)
    assert not climb(lever, 13.9)
    assert climb(lever, 14.0)
    lever.lower(15.0, 1)
    assert not climb(lever, 22.9)
    assert climb(lever, 23.0)


def test_a_rung_that_held_for_long_starts_anew() -> None:
    """After more than a minute on it, its next failure bars it for 4 s again."""
    lever = Lever(7)
    lever.lower(10.0, 1)
    assert climb(lever, 14.0)
    lever.lower(80.0, 1)
    assert climb(lever, 84.0)


def test_a_pause_between_does_not_make_a_rung_younger() -> None:
    """A restart of the evidence is no move."""
    lever = Lever(7)
    lever.lower(10.0, 1)
    assert climb(lever, 14.0)
    lever.restart(60.0)
    lever.lower(80.0, 1)
    assert climb(lever, 84.0)
