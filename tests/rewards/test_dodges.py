"""Dodges: questions back, refusals and copied templates, as substance sees them."""

import pytest

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.prompt import PromptLibrary, read_templates
from rewards import questions, refusals
from rewards.questions import is_question_back
from rewards.sentinels.cases import Case, load_cases
from rewards.substance import is_empty, substance_value
from rewards.templates import template_share
from tests.rewards.briefs import create, rework


def test_questions_are_known_in_all_languages_of_refusals() -> None:
    """Both tables have the same languages."""
    assert questions.PHRASES.keys() == refusals.PHRASES.keys()


@pytest.mark.parametrize("case", load_cases(), ids=lambda case: case.language)
def test_a_question_back_is_no_answer(case: Case) -> None:
    """What asks for more input has no substance, an honest text has all of it."""
    brief = create(case.language, case.instructions)
    assert substance_value(case.question, brief, FinishReason.STOP) == 0.0
    assert substance_value(case.reply, brief, FinishReason.STOP) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "Möchten Sie mehr erfahren? Wir beraten Sie gern.",
        "Lust auf frisches Brot? Komm vorbei!",
        "Would you like a warm roll? Come in!",
        "¿Quieres pan recién hecho? Ven a vernos.",
        "パンはいかがですか？",
    ],
)
def test_questions_to_readers_pass(text: str) -> None:
    """Copy asks its readers things."""
    assert not is_question_back(text)


def test_a_text_that_asks_or_refuses_may_be_reworked() -> None:
    """The translation of a letter that asks for details, or declines, does the work; in a chat asking is an answer."""
    asks = rework(Kind.TRANSLATE, "Could you please provide more details?")
    declines = rework(Kind.TRANSLATE, "I'm sorry, but I can't help with that.")
    chat = Brief("acme", Kind.CHAT, "de", instructions="Schreib was.")
    question = "Könnten Sie mir bitte mehr Einzelheiten nennen?"
    assert substance_value(question, asks, FinishReason.STOP) == 1.0
    assert substance_value("Es tut mir leid, aber ich kann dabei nicht helfen.", declines, FinishReason.STOP) == 1.0
    assert substance_value(question, chat, FinishReason.STOP) == 1.0
    assert substance_value(question, create(), FinishReason.STOP) == 0.0


@pytest.mark.parametrize("text", ["\u3164\u115f", "\u200b\u2060", " \n"])
def test_what_cannot_be_seen_is_empty(text: str) -> None:
    """Fillers are letters to Unicode and nothing to a reader."""
    assert is_empty(text)


def test_template_lines_are_copies() -> None:
    """In every language with templates a reply made of the prompt's own lines has no substance."""
    library = PromptLibrary.load()
    assert len(library.languages) >= 16
    for language in library.languages:
        brief = create(language, "X", min_words=5, max_words=8, tone="warm")
        copy = "\n".join(library.render(brief).user.split("\n")[1:])
        assert substance_value(copy, brief, FinishReason.STOP) == 0.0, language


def test_any_number_stands_for_any_other() -> None:
    """The length line counts as copied whatever its numbers are."""
    brief = create(min_words=5, max_words=8)
    assert template_share("Schreibe 5 bis 8 Wörter.", brief) == 1.0
    assert template_share("Schreibe 7 bis 99 Wörter.", brief) == 1.0


def test_half_a_template_leaves_little() -> None:
    """Five of ten words are the template's: (0.6 - 0.5) / 0.5 = 0.2."""
    text = "Schreibe 5 bis 8 Wörter. Brot ist frisch und gut."
    assert template_share(text, create()) == pytest.approx(0.5)
    assert substance_value(text, create(), FinishReason.STOP) == pytest.approx(0.2)


def test_what_the_brief_says_is_not_the_template() -> None:
    """A text that speaks of word counts itself may be rewritten with them."""
    text = "Schreibe 5 bis 8 Wörter."
    assert template_share(text, rework(Kind.REWRITE, text)) == 0.0


def test_templates_of_unknown_languages_are_the_english_ones() -> None:
    """Finnish borrows, as its prompts do."""
    assert read_templates("fi") == read_templates("en")
    assert template_share("Write 5 to 8 words.", create("fi")) == 1.0
