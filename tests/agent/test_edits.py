"""What a correction changed."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.edits import Edit, Reason, apply_edits, find_edits, reason_of


@pytest.mark.parametrize(
    ("source", "corrected", "expected"),
    [
        # "Their" is source[0:5], "too" source[12:15]; both are written almost like what replaces them.
        (
            "Their going too the market.",
            "They're going to the market.",
            (Edit(0, 5, "They're", Reason.SPELLING), Edit(12, 15, "to", Reason.SPELLING)),
        ),
        (
            "berlin ist groß",
            "Berlin ist groß.",
            (Edit(0, 6, "Berlin", Reason.CASING), Edit(15, 15, ".", Reason.PUNCTUATION)),
        ),
        ("She walk home", "She walks home", (Edit(4, 8, "walks", Reason.GRAMMAR),)),
        ("This is text", "This is a text", (Edit(8, 8, "a ", Reason.GRAMMAR),)),
        ("one  two", "one two", (Edit(3, 5, " ", Reason.PUNCTUATION),)),
        # An emoji is one code point, so "teh" begins at 2.
        ("🙂 teh", "🙂 the", (Edit(2, 5, "the", Reason.SPELLING),)),
        # Without spaces between words every character stands alone: 学校え is source[3:6], and え its last.
        ("わたしは学校え行く", "わたしは学校へ行く", (Edit(6, 7, "へ", Reason.GRAMMAR),)),
        ("Good day", "Good day", ()),
    ],
)
def test_edits_are_the_words_that_changed(source: str, corrected: str, expected: tuple[Edit, ...]) -> None:
    """Spans are code points of the input; what stayed the same is in none of them."""
    assert find_edits(source, corrected) == expected


def test_white_space_around_the_texts_is_no_edit() -> None:
    """Models answer without it; positions still count from the input's first character."""
    assert find_edits("  teh end\n", "the end") == (Edit(2, 5, "the", Reason.SPELLING),)


@given(st.text(alphabet="ab .,\n本é", max_size=30), st.text(alphabet="ab .,\n本é", max_size=30))
def test_edits_applied_to_the_input_give_the_reply(source: str, corrected: str) -> None:
    """For any two texts, white space around them aside; edits are in order and do not overlap."""
    edits = find_edits(source, corrected)
    assert apply_edits(source, edits).strip() == corrected.strip()
    assert all(one.end <= other.start for one, other in pairwise(edits))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("colour", "Colour", Reason.CASING),
        ("well known", "well-known", Reason.PUNCTUATION),
        ("dont", "don't", Reason.PUNCTUATION),
        ("recieve", "receive", Reason.SPELLING),
        ("bought", "purchased", Reason.WORDING),
        ("on", "at", Reason.GRAMMAR),
        ("in order to", "to", Reason.WORDING),
        ("", "however", Reason.WORDING),
    ],
)
def test_reasons_follow_their_rules(old: str, new: str, reason: Reason) -> None:
    """One case of each rule."""
    assert reason_of(old, new) is reason


def test_long_texts_are_compared_in_little_time() -> None:
    """Ten thousand words with every tenth one changed: a thousand edits, at most one per change."""
    words = [f"word{number}" for number in range(10_000)]
    changed = [word.upper() if number % 10 == 0 else word for number, word in enumerate(words)]
    edits = find_edits(" ".join(words), " ".join(changed))
    assert (len(edits), {edit.reason for edit in edits}) == (1000, {Reason.CASING})
