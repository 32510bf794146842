"""What a tenant's settings add to a brief."""

import pytest

from agent.brief import Brief, Kind
from agent.config import LanguageSettings
from agent.defaults import completed


@pytest.mark.parametrize(
    ("asked", "default", "expected"),
    [
        ((None, None), (None, None), (None, None)),
        ((None, None), (20, 60), (20, 60)),
        ((30, None), (20, 60), (30, 60)),
        ((None, 40), (20, 60), (20, 40)),
        ((None, 10), (20, 60), (None, 10)),
        ((80, None), (20, 60), (80, None)),
        ((5, 9), (20, 60), (5, 9)),
    ],
)
def test_a_brief_takes_the_bounds_that_it_leaves_open(
    asked: tuple[int | None, int | None],
    default: tuple[int | None, int | None],
    expected: tuple[int | None, int | None],
) -> None:
    """Its own bound wins, and a default that contradicts it is left out."""
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", min_words=asked[0], max_words=asked[1])
    given = completed(brief, LanguageSettings(min_words=default[0], max_words=default[1]))
    assert (given.min_words, given.max_words) == expected


def test_a_correction_has_no_length() -> None:
    """The text is as long as it is."""
    brief = Brief("acme", Kind.CORRECT, "de", text="Ein Broot.")
    assert completed(brief, LanguageSettings(min_words=20)) == brief
