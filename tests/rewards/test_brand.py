"""Brand terms: intact, mangled, left out."""

import pytest

from agent.brief import Brief, Kind
from rewards.brand import Brand, brand_value
from tests.rewards.briefs import create, given, rework

_TRANSLATE = rework(Kind.TRANSLATE, "The Klingelo bell rings.")


@pytest.mark.parametrize(
    "text",
    ["Die Klingelo läutet.", "Klingelos Klang", "KLINGELO läutet", "Klingeloの鐘", "Klingelo #klingelo klingelo.de"],
)
def test_intact_names(text: str) -> None:
    """Inflected, in capitals, beside a script without spaces, with hashtag and address: intact."""
    assert brand_value(text, ["Klingelo"], _TRANSLATE) == 1.0


@pytest.mark.parametrize("text", ["Die Glocke läutet.", "klingelo", "Kling\u0435lo", "Klin-gelo", "Kli\u200bngelo"])
def test_mangled_and_missing_names(text: str) -> None:
    """Left out, in another casing, with a look-alike, taken apart, with a joiner: not intact."""
    assert brand_value(text, ["Klingelo"], _TRANSLATE) == 0.0


def test_the_share_of_names() -> None:
    """Of two names in the source one is kept; a third is in neither text and does not count."""
    brief = rework(Kind.TRANSLATE, "Klingelo and Backhaus")
    assert brand_value("Klingelo und Bäckerei", ["Klingelo", "Backhaus", "Molino"], brief) == 0.5


@pytest.mark.parametrize(
    ("text", "brief", "value"),
    [
        ("next week", create("en"), None),  # a name that is a word, and a text about none
        ("Brot ist gut.", create(instructions="Schreibe über Klingelo"), None),
        ("klingelo läutet", create(instructions="Schreibe über Klingelo"), 0.0),
        ("Klingelo läutet, klingelo!", create(instructions="Schreibe über Klingelo"), 1.0),
    ],
)
def test_a_new_text_names_what_it_likes(text: str, brief: Brief, value: float | None) -> None:
    """A new text need not name a term; a casing counts only of a name that its brief tells."""
    assert brand_value(text, ["Klingelo", "Next"], brief) == value


def test_absent_without_terms() -> None:
    """No terms, no part."""
    assert Brand().judge(given("Brot", create())) is None
    assert Brand().judge(given("klingelo", _TRANSLATE, brand_terms=("Klingelo",))) == 0.0
