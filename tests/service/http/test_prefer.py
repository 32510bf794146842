"""The `Prefer` header."""

import pytest

from service.http.prefer import Preference, preference_of


@pytest.mark.parametrize(
    ("headers", "wait_s", "applied"),
    [
        ([], 25.0, None),
        (["wait=10"], 10.0, "wait=10"),
        (["WAIT = 10"], 10.0, "wait=10"),
        (['wait="10"'], 10.0, "wait=10"),
        (["wait=0"], 0.0, "wait=0"),
        (["wait=90"], 40.0, "wait=40"),  # cut to max_wait_s
        (["respond-async"], 0.0, "respond-async"),
        (["respond-async, wait=10"], 10.0, "respond-async, wait=10"),
        (["respond-async", "wait=10"], 10.0, "respond-async, wait=10"),
        (["wait=5, wait=10"], 5.0, "wait=5"),  # RFC 7240 section 2: the first of one name counts
        (["respond-async; foo=bar"], 0.0, "respond-async"),
        (["wait=soon"], 25.0, None),
        (["wait=-1"], 25.0, None),
        (["wait"], 25.0, None),
        (["handling=lenient, return=minimal"], 25.0, None),
    ],
)
def test_what_a_caller_prefers(headers: list[str], wait_s: float, applied: str | None) -> None:
    """Held 25 s without a wish, at most 40 s with one; what is not understood is ignored and not applied."""
    assert preference_of(headers, hold_s=25.0, max_wait_s=40.0) == Preference(wait_s, applied)


def test_a_wish_may_always_be_what_is_held_anyway() -> None:
    """hold_s above max_wait_s is the limit then."""
    assert preference_of(["wait=90"], hold_s=60.0, max_wait_s=25.0).wait_s == 60.0
