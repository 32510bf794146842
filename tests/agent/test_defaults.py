"""What a tenant's settings add to a brief."""

import pytest

from agent.allowance import Allowance
from agent.brief import Brief, Kind
from agent.config import LanguageSettings
from agent.defaults import MAX_GLOSSARY_TERMS, completed
from agent.prompt import PromptLibrary


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


def test_banned_terms_are_told_beside_those_of_the_brief() -> None:
    """The brief's come first, and each once."""
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", forbidden_terms=("billig", "laut"))
    given = completed(brief, LanguageSettings(banned_terms=("gratis", "billig")))
    assert given.forbidden_terms == ("billig", "laut", "gratis")


def test_a_correction_has_neither_length_nor_banned_terms() -> None:
    """The text is as long as it is, and its words are its own."""
    brief = Brief("acme", Kind.CORRECT, "de", text="Ein Broot.")
    assert completed(brief, LanguageSettings(min_words=20, banned_terms=("Ein",))) == brief


def test_terms_of_the_glossary_that_a_brief_holds_are_told() -> None:
    """In any casing and inside of words, the longest first; a correction is told none."""
    settings = LanguageSettings(glossary={"bell": "Klingel", "bicycle bell": "Radklingel", "saddle": "Sattel"})
    brief = Brief("acme", Kind.TRANSLATE, "de", text="Two Bells and a bicycle bell.")
    given = completed(brief, settings)
    assert given.glossary == (("bicycle bell", "Radklingel"), ("bell", "Klingel"))
    user = PromptLibrary.load().render(given).user
    assert user.endswith("Verwende diese Übersetzungen von Begriffen: bicycle bell → Radklingel, bell → Klingel.")
    assert completed(Brief("acme", Kind.CORRECT, "de", text="bell"), settings).glossary == ()


def test_a_prompt_holds_so_many_terms_at_most() -> None:
    """A glossary of a thousand terms does not fill the context."""
    terms = {f"term{number:03}": "x" for number in range(100)}
    brief = Brief("acme", Kind.CREATE, "de", instructions=" ".join(terms))
    assert len(completed(brief, LanguageSettings(glossary=terms)).glossary) == MAX_GLOSSARY_TERMS


def test_what_may_stand_in_other_languages_goes_with_the_brief() -> None:
    """Of a correction, too: whoever judges the reply later reads it there."""
    settings = LanguageSettings(foreign_share=0.2, foreign_languages=("en",))
    for kind in (Kind.CREATE, Kind.CORRECT):
        brief = Brief("acme", kind, "de", instructions="Brot", text="Brot")
        assert completed(brief, settings).allowance == Allowance(0.2, ("en",))
