"""Numerals: numbers in every notation, and whether a reworked text keeps them."""

import pytest

from agent.brief import Brief, Kind
from rewards.numbers import Number, read_numbers
from rewards.numerals import numerals_value
from tests.rewards.briefs import create, rework


@pytest.mark.parametrize(
    "text",
    ["1,234.5", "1.234,5", "1 234,5", "1\u202f234,5", "1'234.5", "١٬٢٣٤٫٥", "१,२३४.५", "１,２３４.５"],
)
def test_one_number_in_every_notation(text: str) -> None:
    """Separators and digits of eight notations give the same value."""
    assert read_numbers(text) == (Number(frozenset({1234.5})),)


def test_a_single_group_of_three_is_ambiguous() -> None:
    """1.234 is a thousand in German and little more than one in English; it agrees with both, and no third number."""
    (number,) = read_numbers("1.234")
    assert number.values == {1234.0, 1.234}
    assert number.agrees(Number(frozenset({1234.0})))
    assert not number.agrees(Number(frozenset({12.34})))


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("€1,249.90", 1249.9, "EUR"),
        ("1.249,90 €", 1249.9, "EUR"),
        ("1.249,90 евро", 1249.9, "EUR"),
        ("1,249.90ユーロです", 1249.9, "EUR"),
        ("1,249.90유로이고", 1249.9, "EUR"),
        ("$19", 19.0, "USD"),
        ("49 zł", 49.0, "PLN"),
        ("%20", 20.0, "%"),
        ("20 %", 20.0, "%"),
        ("٢٠٪", 20.0, "%"),
        ("350 g", 350.0, "g"),
        ("350グラム", 350.0, "g"),
        ("1,23,456 रुपये", 123456.0, "INR"),
        ("5 Brote", 5.0, None),
    ],
)
def test_units_before_and_after(text: str, value: float, unit: str | None) -> None:
    """Currencies and units are known by sign and word, on either side, also where no space is written."""
    (number,) = read_numbers(text)
    assert (set(number.values), number.unit) == ({value}, unit)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1.5 million yen", "150万円"),  # 1.5 x 10^6 = 150 x 10^4
        ("14:30", "2:30 pm"),
        ("14h30", "14.30 Uhr"),
        ("5 lakh", "500.000"),
    ],
)
def test_scales_and_clocks_agree(first: str, second: str) -> None:
    """Scale words and clocks of twelve hours are other ways to write a number."""
    assert read_numbers(first)[0].agrees(read_numbers(second)[0])


@pytest.mark.parametrize("text", ["24.12.2025", "2025-12-24", "24/12/25", "24. Dezember 2025", "2025年12月24日"])
def test_dates_yield_day_and_year(text: str) -> None:
    """The 24th and the year 2025 are in every notation; the twelfth month is small enough to be a word."""
    numbers = read_numbers(text)
    for value in (24.0, 2025.0):
        assert any(value in number.values and not number.is_small for number in numbers)


def test_units_that_differ_do_not_agree() -> None:
    """49 € is not 49 $, but 49 without a sign may be either."""
    euros, dollars, bare = (read_numbers(text)[0] for text in ("49 €", "49 $", "49"))
    assert not euros.agrees(dollars)
    assert euros.agrees(bare)


_SOURCE = "The lamp costs €49.90, weighs 350 g and arrives by 24 December 2025."


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("Die Lampe kostet 49,90 €, wiegt 350 g und kommt bis zum 24.12.2025.", 1.0),
        # 49.9 became 47.9: of all numbers 3 of 5 (49.9, 47.9, 350, 24, 2025) agree, of amounts 0 of 2.
        ("Die Lampe kostet 47,90 €, wiegt 350 g und kommt bis zum 24.12.2025.", 0.0),
        # The weight is lost: 3 of 4 numbers, 1 of 1 amounts.
        ("Die Lampe kostet 49,90 € und kommt bis zum 24.12.2025.", 0.75),
        # A year more: 4 of 5.
        ("Die Lampe kostet 49,90 €, wiegt 350 g und kommt bis zum 24.12.2025, seit 1999.", 0.8),
        # Small integers say nothing: one lamp, two bulbs.
        ("1 Lampe mit 2 Birnen kostet 49,90 €, wiegt 350 g und kommt bis zum 24.12.2025.", 1.0),
    ],
)
def test_a_translation_keeps_numbers(reply: str, value: float) -> None:
    """The share of numbers that agree, or of amounts if that is worse."""
    assert numerals_value(reply, rework(Kind.TRANSLATE, _SOURCE)) == pytest.approx(value)


def test_a_shorter_rewrite_may_leave_numbers_out() -> None:
    """Told to be shorter than the text a rewrite loses nothing, but may not change what it keeps."""
    shorter = rework(Kind.REWRITE, _SOURCE, max_words=6)
    assert numerals_value("Die Lampe kostet 49,90 €.", shorter) == 1.0
    assert numerals_value("Die Lampe kostet 47,90 €.", shorter) == 0.0
    # Three of four numbers are lost without such a bound.
    assert numerals_value("Die Lampe kostet 49,90 €.", rework(Kind.REWRITE, _SOURCE)) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("instructions", "reply", "value"),
    [
        ("Rabatt 20 % auf Brot", "Jetzt 20 % sparen!", 1.0),
        ("Rabatt 20 % auf Brot", "Jetzt 30 % sparen!", 0.0),
        ("Rabatt 20 % auf Brot", "Jetzt sparen!", None),
        ("Schreibe 3 Sätze über Brot", "Unser Brot kostet 4 €.", None),
        ("Brot", "Seit 1899 backen wir.", None),
    ],
)
def test_a_new_text_states_no_other_amounts(instructions: str, reply: str, value: float | None) -> None:
    """Where a brief gives amounts a new text has those alone; where it gives none the rule does not apply."""
    assert numerals_value(reply, create(instructions=instructions)) == value


@pytest.mark.parametrize(
    "brief", [rework(Kind.TRANSLATE, "Bread is good."), Brief("acme", Kind.CHAT, "de", instructions="49 €?")]
)
def test_absent_without_numbers_and_in_chats(brief: Brief) -> None:
    """A text without numbers and a chat are not judged."""
    assert numerals_value("Brot für 99 €.", brief) is None
