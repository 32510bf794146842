"""When a delivery is tried again."""

import random
from datetime import UTC, datetime, timedelta

import pytest

from service.webhooks.schedule import JITTER, MAX_TRIES, WAITS_S, next_try, patience_s
from service.webhooks.sender import Outcome

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAILED = Outcome(1.0, 500)


class NoJitter(random.Random):
    """A random source that always draws the lower bound."""

    def uniform(self, a: float, b: float) -> float:
        return a


def waits(outcome: Outcome) -> list[float]:
    """Seconds from each try to the next."""
    found = []
    for num_tries in range(1, MAX_TRIES + 1):
        at = next_try(num_tries, outcome, NOW, NoJitter())
        if at is not None:
            found.append((at - NOW).total_seconds())
    return found


def test_ten_tries_over_about_75_hours() -> None:
    """At once, then 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h after the one before."""
    assert waits(FAILED) == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    assert MAX_TRIES == 10
    # 5 + 300 + 1,800 s + (2 + 5 + 10 + 14 + 20 + 24 = 75) h = 272,105 s
    assert sum(WAITS_S) == 272_105


def test_waits_are_spread_upwards_by_a_tenth() -> None:
    """Never sooner than the schedule says, never more than 10 % later, and not all alike."""
    rng = random.Random(1)
    at = [next_try(2, FAILED, NOW, rng) for _ in range(200)]
    seconds = [(item - NOW).total_seconds() for item in at if item is not None]
    assert 300 <= min(seconds) < max(seconds) <= 300 * (1 + JITTER)
    assert len(set(seconds)) > 100


def test_a_receiver_that_is_gone_is_not_tried_again() -> None:
    """410 ends a delivery at its first try."""
    assert next_try(1, Outcome(1.0, 410), NOW, NoJitter()) is None


@pytest.mark.parametrize(
    ("status", "retry_after", "wait_s"),
    [
        (429, "60", 60),
        (503, " 120 ", 120),
        (503, "Thu, 01 Jan 2026 00:10:00 GMT", 600),
        (503, "Wed, 31 Dec 2025 23:00:00 GMT", 5),  # in the past: the schedule's own wait
        (429, "2", 5),  # shorter than the schedule's own wait
        (429, "99999999999999999999", 86_400),  # a day at most
        (429, "soon", 5),
        (429, "-5", 5),
        (429, None, 5),
        (500, "60", 5),  # not a status by which one asks for patience
        (302, "60", 5),
    ],
)
def test_retry_after_is_heeded_where_it_asks_for_more(status: int, retry_after: str | None, wait_s: float) -> None:
    """After the first try the schedule waits 5 s."""
    at = next_try(1, Outcome(1.0, status, retry_after=retry_after), NOW, NoJitter())
    assert at == NOW + timedelta(seconds=wait_s)


def test_patience_is_none_where_none_is_asked() -> None:
    """Only then a lane is not held."""
    assert patience_s(Outcome(1.0, 500, retry_after="60"), NOW) is None
    assert patience_s(Outcome(1.0, 429), NOW) is None
    assert patience_s(Outcome(1.0, 429, retry_after="0"), NOW) == 0
