"""What tuning did while something was measured: ten spans of 0.1 s, training in the 4th, a rollout in the 7th and 8th,
nothing known of the 10th."""

import pytest

from service.exposure import Exposure, Span, Timeline


@pytest.fixture
def timeline() -> Timeline:
    made = Timeline()
    for number in range(10):
        train_share = {3: 0.5, 9: None}.get(number, 0.0)
        made.add(Span(number / 10, (number + 1) / 10, train_share, 4 + number, int(number in (6, 7))))
    return made


def seen(exposure: Exposure) -> tuple[bool, bool]:
    return exposure.trained, exposure.rolled


def test_a_measurement_is_what_ran_beside_it(timeline: Timeline) -> None:
    """Training, rollouts, both or neither."""
    assert seen(timeline.exposure(0.0, 0.3)) == (False, False)
    assert seen(timeline.exposure(0.25, 0.45)) == (True, False)
    assert seen(timeline.exposure(0.62, 0.7)) == (False, True)
    assert seen(timeline.exposure(0.3, 0.8)) == (True, True)


def test_a_little_is_neither_evidence_nor_calm(timeline: Timeline) -> None:
    """Up to 0.31 s training ran for half of the last 0.01 s: 1.6 %, less than 5 %."""
    assert seen(timeline.exposure(0.0, 0.31)) == (False, False)
    assert not timeline.was_calm(0.0, 0.31)


def test_calm_is_when_nothing_ran_nor_was_about_to_end() -> None:
    """A micro-batch that is told of 0.2 s later may have run already; rollouts are known at once."""
    timeline = Timeline()
    for number in range(8):
        timeline.add(Span(number / 10, (number + 1) / 10, 1.0 if number == 4 else 0.0, 1, int(number == 7)))
    assert timeline.was_calm(0.0, 0.2)
    assert not timeline.was_calm(0.0, 0.25)
    assert not timeline.was_calm(0.38, 0.45)
    assert timeline.was_calm(0.5, 0.7)
    assert not timeline.was_calm(0.5, 0.75)


def test_what_nobody_watched_is_not_calm(timeline: Timeline) -> None:
    """Neither the time before the first span, nor one of which the worker said nothing."""
    assert timeline.was_calm(0.42, 0.58)
    assert not timeline.was_calm(-0.1, 0.05)
    assert not timeline.was_calm(0.85, 0.95)


def test_the_load_is_that_of_its_time(timeline: Timeline) -> None:
    """Half of the time with 4 and half with 5 live sequences."""
    assert timeline.exposure(0.05, 0.15).load == pytest.approx(4.5)
