"""Which calls are one and the same."""

import pytest

from agent.errors import InvalidInput
from service.idempotency import KeyLife, fingerprint_of, key_of_body, key_of_caller

LIFE = KeyLife(ttl_s=86_400.0, answered_body_ttl_s=600.0)
ROUTE = "/v1/content"


def test_a_body_is_the_same_whatever_the_order_of_its_members() -> None:
    """Values count, and so does the order of a list."""
    assert fingerprint_of({"a": 1, "b": [1, 2]}) == fingerprint_of({"b": [1, 2], "a": 1})
    assert fingerprint_of({"b": [1, 2]}) != fingerprint_of({"b": [2, 1]})
    assert fingerprint_of({"text": "zażółć"}) != fingerprint_of({"text": "zazolc"})


def test_a_callers_key_counts_within_its_route() -> None:
    """Another route, another call; the quotes of a structured field are not part of the key."""
    key = key_of_caller("abc", ROUTE, "f", LIFE)
    assert key_of_caller(' "abc" ', ROUTE, "f", LIFE) == key
    assert key_of_caller("abc", "/v1/other", "f", LIFE).name != key.name
    assert key_of_caller("abd", ROUTE, "f", LIFE).name != key.name
    assert (key.ttl_s, key.answered_ttl_s) == (86_400.0, None)


def test_a_bodys_key_is_its_fingerprint() -> None:
    """It never meets a key that a caller chose, and is kept for less once it was answered."""
    key = key_of_body(ROUTE, "f", LIFE)
    assert key.name != key_of_caller("f", ROUTE, "f", LIFE).name
    assert key.name != key_of_body(ROUTE, "g", LIFE).name
    assert (key.ttl_s, key.answered_ttl_s) == (86_400.0, 600.0)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("", "must have between 1 and 255 characters, got 0"),
        ('""', "must have between 1 and 255 characters, got 0"),
        ("k" * 256, "must have between 1 and 255 characters, got 256"),
        ("schlüssel", "must be printable ASCII"),
        ("a\tb", "must be printable ASCII"),
    ],
)
def test_a_key_that_breaks_a_rule_is_refused(header: str, message: str) -> None:
    """The error names the header and the rule."""
    with pytest.raises(InvalidInput, match=message) as caught:
        key_of_caller(header, ROUTE, "f", LIFE)
    assert caught.value.field == "Idempotency-Key"
