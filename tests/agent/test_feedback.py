"""Feedback: whose it is, what it replaces, and when two pieces are the same."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.feedback import Comment, Comparison, Feedback, Implicit, Opinion, Rating, Signal, TextEdit, Thumbs

AT = datetime(2026, 1, 1, tzinfo=UTC)


def feedback(opinion: Opinion, end_user: str | None = "anna", about: str | None = None) -> Feedback:
    return Feedback("acme", "req_1", "de", AT, "key_1", opinion, end_user, about)


@pytest.mark.parametrize("stars", [0, 6, -1])
def test_stars_lie_between_one_and_five(stars: int) -> None:
    """Anything else is no rating."""
    with pytest.raises(ValueError, match=f"stars must be between 1 and 5, got {stars}"):
        Rating(stars)


def test_a_voice_is_the_end_user_or_else_the_key() -> None:
    """An end user who is named like a key is not taken for it."""
    assert feedback(Rating(5)).voice == "user anna"
    assert feedback(Rating(5), end_user=None).voice == "key key_1"
    assert feedback(Rating(5), end_user="key key_1").voice != feedback(Rating(5), end_user=None).voice


def test_a_later_opinion_of_the_same_voice_and_kind_takes_the_place_of_the_first() -> None:
    """The slot is the same and the content differs; when and by which key it came does not matter."""
    first, second = feedback(Rating(2)), feedback(Rating(5))
    assert first.slot == second.slot
    assert first.content != second.content
    assert replace(first, at=datetime(2027, 1, 1, tzinfo=UTC), key_id="key_2").slot == first.slot
    assert feedback(TextEdit("a")).slot == feedback(TextEdit("b", published=True)).slot
    assert feedback(TextEdit("a")).content != feedback(TextEdit("a", published=True)).content


def test_other_voices_kinds_texts_and_comments_have_slots_of_their_own() -> None:
    """Two comments stand beside each other, as do comparisons with two texts."""
    opinions = [
        feedback(Rating(5)),
        feedback(Rating(5), end_user="ben"),
        feedback(Rating(5), about="Another text."),
        feedback(Thumbs(True)),
        feedback(Comment("Too long.")),
        feedback(Comment("Too short.")),
        feedback(Comparison(True, "x")),
        feedback(Comparison(True, "y")),
        feedback(Implicit(Signal.IGNORED)),
    ]
    assert len({item.slot for item in opinions}) == len(opinions)
    assert feedback(Comparison(True, "x")).slot == feedback(Comparison(False, "x")).slot
