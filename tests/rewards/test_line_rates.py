"""Line pass and word pass of one reply."""

import pytest

from agent.contract import LanguageContract
from agent.fakes import FixedDetector
from rewards.line_rates import line_pass, word_pass

CONTRACT = LanguageContract(FixedDetector({"satz": "de", "sentence": "en"}))
GERMAN, ENGLISH = "Dieser lange Satz ist auf Deutsch.", "This long sentence is in English."


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        (GERMAN, True),
        (ENGLISH, False),
        (f"{GERMAN}\n{ENGLISH}", False),
        (f"{GERMAN} {ENGLISH}", False),
        (f"{GERMAN}\nOne English sentence now", True),
        ("Ein Satz", None),
        ("Worte ohne jeden Hinweis auf Sprache", None),
    ],
)
def test_every_long_line_has_to_pass(text: str, passes: bool | None) -> None:
    """A line of four words is not judged; where nothing could be told there is no answer."""
    assert line_pass(text, CONTRACT.judge(text, "de")) is passes


@pytest.mark.parametrize(
    ("text", "language", "passes"),
    [
        ("これは新しい自転車のベルです。", "ja", True),
        ("これは new bell です。", "ja", False),
        ("これは Coloq のベルです。", "ja", True),
        ("Новый звонок для вашего велосипеда with love.", "ru", False),
        ("Coloq https://coloq.example/the/new/bell これはベルです。", "ja", True),
        ("A new bell for your bicycle.", "de", None),
        ("A new bell.", "xx", None),
    ],
)
def test_other_scripts_hold_no_english_word(text: str, language: str, passes: bool | None) -> None:
    """Names and addresses are no English words; for Latin script, and for unknown languages, there is no answer."""
    assert word_pass(text, language) is passes


def test_brand_terms_are_no_english_words() -> None:
    """A brand may be called "Just Right"."""
    assert word_pass("Just Right のベルです。", "ja", ["Just Right"])
    assert not word_pass("Just Right のベルです。", "ja")
