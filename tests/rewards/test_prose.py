"""Prose: floods of symbols, digits, hidden characters and words."""

import pytest

from agent.brief import Kind
from rewards.prose import prose_value
from tests.rewards.briefs import create, rework

_HONEST = "Unser Brot ist frisch, und der Kaffee dazu ist warm."


@pytest.mark.parametrize(
    "text",
    [
        _HONEST,
        f"🔥 {_HONEST} 🎉",
        "Jetzt bestellen!",
        "- Brot 3,50 €\n- Kuchen 4,20 €\n- Kaffee 2,80 €",
        "می\u200cخواهم نان تازه بخرم",
        "我们的面包很好吃！",
        "",
    ],
)
def test_honest_copy_is_free(text: str) -> None:
    """A few emoji, a price list, a joiner where the script writes it, and no text cost nothing."""
    assert prose_value(text, create()) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        _HONEST.replace(" ", " 🔥🎉 "),
        _HONEST + "!" * 60,
        _HONEST + " 123456789" * 7,
        "\u200b".join(_HONEST),
        "brot " * 10,
        "Brot, Kuchen, Torte, Brezel, Semmel, Kaffee, Tee, Saft, Milch, Wasser",
        "a b c d e f g h i j",
    ],
)
def test_floods_cost_half_at_least(text: str) -> None:
    """Emoji, marks, digits, hidden characters, one word, words in a row and single letters."""
    assert prose_value(text, create()) <= 0.5


def test_one_word_too_often() -> None:
    """Three of eight long words: 0.375, half-way between a quarter (free) and a half (worth nothing)."""
    assert prose_value("brot kuchen brot kaffee brot torte hefe mehl", create()) == pytest.approx(0.5)


def test_keywords_may_come_twice() -> None:
    """The keyword's third and fourth time are 2 x 5 of 53 characters, 0.189: (0.3 - 0.189) / 0.22 = 0.506."""
    text = "Hefen sind gut Hefen tun gut und Hefen wie auch Hefen"
    assert len(text) == 53
    assert prose_value(text, create(keywords=("Hefen",))) == pytest.approx((0.3 - 10 / 53) / 0.22)
    assert prose_value("Hefen sind gut und Hefen tun gut, wie man weiß.", create(keywords=("Hefen",))) == 1.0


def test_a_source_full_of_digits_allows_as_many() -> None:
    """A list of numbers may be translated."""
    numbers = "030 1234567 und 040 7654321"
    assert prose_value(numbers, create()) < 1.0
    assert prose_value(numbers, rework(Kind.TRANSLATE, numbers)) == 1.0


def test_code_that_a_conversation_asks_for_is_no_flood() -> None:
    """The reply around it is judged, and one that is all code costs nothing; it scored -0.5, since its language cannot
    be told either. Nobody who asked for a text gets a program."""
    code = '```json\n{"a": [1, 2, {"b": "c"}], "d": {"e": true}}\n```'
    asked = create(kind=Kind.CHAT, instructions="Ein Beispiel in JSON, bitte.")
    assert prose_value(code, asked) == 1.0
    assert prose_value(f"{_HONEST}\n{code}", asked) == 1.0
    assert prose_value(f"{code}\n{'★' * 40} {_HONEST}", asked) < 1.0
    assert prose_value(code, create(kind=Kind.CHAT, instructions="Ein Text, bitte.")) == 0.0
