"""Format: the form that was asked for, and broken text."""

import pytest

from agent.brief import Kind
from rewards.format import format_value, is_broken
from rewards.layouts import Layout, asked_layout
from tests.rewards.briefs import create, rework

_SCHEMA = '{"type":"object","properties":{"text":{"type":"string"}},"required":["text"]}'


@pytest.mark.parametrize(
    ("text", "value"),
    [('{"text": "Brot"}', 1.0), ('{"txt": "Brot"}', 0.25), ('{"text": "Brot"', 0.0), ("Brot", 0.0), ("[" * 9999, 0.0)],
)
def test_json_fits_its_schema(text: str, value: float) -> None:
    """Fitting JSON is worth 1, other JSON a quarter, no JSON nothing."""
    assert format_value(text, create(schema=_SCHEMA)) == value


@pytest.mark.parametrize(
    "text",
    [
        "Brot\x07",
        "Brot \ufffd",
        "Brot \ue000",
        "Brot \u202egut",
        "```\nBrot",
        "<b>Brot",
        "Brot</b>",
        "**Brot ist gut",
        "B\u0301\u0302\u0303\u0304\u0305rot",
    ],
)
def test_broken_text(text: str) -> None:
    """Control, lost and private characters, overrides, open markup and piled-up marks break any reply."""
    assert is_broken(text)
    assert format_value(text, create()) == 0.0


@pytest.mark.parametrize(
    "text", ["Brot\n\tist gut.\r\n", "<b>Brot</b><br>", "Ist 3 < 4?", "**Brot**", "Bánh mì là ngon", "हिन्दी", "שָׁלוֹם"]
)
def test_whole_text(text: str) -> None:
    """Line breaks, closed markup, a lone bracket and marks of real languages are no fault."""
    assert not is_broken(text)


@pytest.mark.parametrize(
    ("instructions", "layout"),
    [
        ("Write three bullet points about bread", Layout(is_list=True, has_heading=False)),
        ("Schreibe eine Aufzählung mit Überschrift", Layout(is_list=True, has_heading=True)),
        ("Rédige une liste à puces", Layout(is_list=True, has_heading=False)),
        ("Напиши маркированный список с заголовком", Layout(is_list=True, has_heading=True)),
        ("パンについて箇条書きで", Layout(is_list=True, has_heading=False)),
        ("写一段带标题的短文", Layout(is_list=False, has_heading=True)),
        ("Schreibe über unsere Preisliste", Layout(is_list=False, has_heading=False)),
    ],
)
def test_layouts_are_read_from_instructions(instructions: str, layout: Layout) -> None:
    """Lists and headings are asked for in the words of each language."""
    assert asked_layout(instructions) == layout


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Brot\n\n- frisch\n- warm", 1.0),
        ("- frisch\n- warm", 0.5),  # no heading
        ("Brot\n\n- frisch", 0.5),  # one item of two
        ("Brot ist frisch und warm.", 0.0),
        ("# Brot\n1. frisch\n2. warm", 1.0),
    ],
)
def test_a_list_with_a_heading(text: str, value: float) -> None:
    """The worse of both counts: items by their share of two, a missing heading costs half."""
    assert format_value(text, create(instructions="Stichpunkte mit Überschrift")) == value


def test_alternatives_count_by_their_share() -> None:
    """Two distinct ones of four are worth one half."""
    brief = rework(Kind.SUGGEST, "Brot", num_alternatives=4)
    assert format_value("1. Frisches Brot\n2. Warme Brötchen\n3. Frisches Brot", brief) == 0.5


def test_a_translation_keeps_its_list() -> None:
    """Two of three items are still ones: 2/3. A text without a list asks for none."""
    brief = rework(Kind.TRANSLATE, "Bread:\n- fresh\n- warm\n- good")
    assert format_value("Brot:\n- frisch\n- warm und gut", brief) == pytest.approx(2 / 3)
    assert format_value("Brot", rework(Kind.TRANSLATE, "Bread")) == 1.0
