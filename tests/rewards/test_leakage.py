"""Leakage: code, markup, placeholders, chat markers and addresses."""

import pytest

from agent.brief import Brief, Kind
from rewards.leakage import Leakage, leakage_value, leaks
from tests.rewards.briefs import create, given, rework


@pytest.mark.parametrize(
    "leak",
    [
        "<|im_end|>",
        "</s>",
        "[INST]",
        "<think>",
        "User: mehr",
        "### Response:",
        "{{ name }}",
        "{% if x %}",
        "${price}",
        "{company}",
        "[Ihr Name]",
        "Lorem ipsum",
        "```python",
        "<br/>",
        '<div class="x">',
        "&nbsp;",
        "const x = 1;",
        '{"text": 1}',
        "https://example.com/x",
        "www.example.com",
        "info@example.com",
        "example.de",
    ],
)
def test_leaks_are_found(leak: str) -> None:
    """Each of them is a leak in a text that was not asked for it, and none in one whose brief has it."""
    text = f"Brot ist gut.\n{leak}"
    assert leakage_value(text, create()) == 0.0
    assert leakage_value(text, create(instructions=f"Verwende {leak}")) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "## Brot\n\n- frisch\n- **warm**\n\n1. kneten",
        "Öffnungszeiten: 8:00–18:00 Uhr (auch sonntags), Preise ab 3,50 €; bis bald & danke!",
        "Ein Ende.Ein Anfang ohne Leerzeichen.",
        "Mehr erfahren #brot @backhaus",
        "Brot [1] und <3",
        "[Mehr](mehr) lesen",
    ],
)
def test_content_is_no_leak(text: str) -> None:
    """Markdown, prices, ampersands, hashtags, footnotes and hearts belong to texts."""
    assert list(leaks(text, create())) == []


@pytest.mark.parametrize(
    ("text", "brief"),
    [
        ("<p>Brot</p>", create(instructions="Schreibe HTML über Brot")),
        ("Mehr auf https://backhaus.de", create(instructions="mit einem Link zum Shop")),
        ("Siehe https://backhaus.de/x.", rework(Kind.CORRECT, "Sihe https://backhaus.de/x.")),
        ('{"text": "Brot"}', create(schema='{"type":"object"}')),
        ("```\nprint()\n``` https://x.org", Brief("acme", Kind.CHAT, "de", instructions="Wie?")),
    ],
)
def test_what_was_asked_for_is_no_leak(text: str, brief: Brief) -> None:
    """HTML, an address or JSON that the brief asks for or holds, and code in a chat, are answers."""
    assert leakage_value(text, brief) == 1.0


def test_markers_leak_in_chats_and_in_strings_of_json() -> None:
    """No chat and no form makes a chat marker an answer."""
    assert leakage_value("Gern! <|im_end|>", Brief("acme", Kind.CHAT, "de", instructions="Wie?")) == 0.0
    assert leakage_value('{"text": "Brot {{ name }}"}', create(schema='{"type":"object"}')) == 0.0


def test_brand_terms_may_be_addresses() -> None:
    """A name that reads like an address is a name."""
    assert Leakage().judge(given("Buche bei Booking.com!", create(), brand_terms=("Booking.com",))) == 1.0
    assert Leakage().judge(given("Buche bei Booking.com!", create())) == 0.0
