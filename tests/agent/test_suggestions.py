"""Alternatives out of what a model wrote."""

import pytest

from agent.suggestions import distinct, split_alternatives


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here you are:\n1. Fresh bread\n2. Warm bread", ["Fresh bread", "Warm bread"]),
        ("- Fresh bread\n- “Warm bread”\n", ["Fresh bread", "Warm bread"]),
        ("1) Fresh\n   every day\n2) Warm", ["Fresh\n   every day", "Warm"]),
        ("１つ目です。\n\n2、別の案\n3、第三案", ["別の案", "第三案"]),
        ("• один\n• два", ["один", "два"]),
        ("First paragraph.\nStill it.\n\nSecond.", ["First paragraph.\nStill it.", "Second."]),
        ("3.5 million loaves.\n\ne.g. rye", ["3.5 million loaves.", "e.g. rye"]),
        ("One sentence alone.", ["One sentence alone."]),
        (" \n ", []),
    ],
)
def test_items_of_a_list_or_else_paragraphs(text: str, expected: list[str]) -> None:
    """Introductions, marks and quotation marks are left out; a line without a mark belongs to the item before."""
    assert split_alternatives(text) == expected


def test_near_duplicates_are_left_out() -> None:
    """The same words in other letters and marks, or with a letter changed in a long line, say the same again."""
    given = [
        "Fresh bread, every day!",
        "fresh bread every day",
        "Fresh bread, every dey",
        "Warm rolls at seven",
        "!",
    ]
    assert distinct(given, 5) == ("Fresh bread, every day!", "Warm rolls at seven")


def test_no_more_than_asked_for() -> None:
    """The first ones count."""
    assert distinct(["alpha", "beta", "gamma"], 2) == ("alpha", "beta")
