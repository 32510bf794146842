"""Sentences, their spans, and the noise taken out of them."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.sentences import split_sentences, strip_noise


def _texts(text: str) -> list[str]:
    return [text[sentence.start : sentence.end] for sentence in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("今日は晴れ。散歩しよう！本当？", ["今日は晴れ。", "散歩しよう！", "本当？"]),
        ("यह अच्छा है। वह नहीं॥ ठीक", ["यह अच्छा है।", "वह नहीं॥", "ठीक"]),
        ("كيف حالك؟ أنا بخير.", ["كيف حالك؟", "أنا بخير."]),
        ("یہ اچھا ہے۔ وہ نہیں۔", ["یہ اچھا ہے۔", "وہ نہیں۔"]),
        (
            "A heading\n\n- first item\n* second item\n3. third item",
            ["A heading", "first item", "second item", "third item"],
        ),
        ("Dr. Meier zahlt 3.50 Euro, z. B. heute. Gut.", ["Dr. Meier zahlt 3.50 Euro, z. B. heute.", "Gut."]),
        ("He said “Stop!” Then he left.", ["He said “Stop!”", "Then he left."]),
        ("See https://a.example/x.y?z=1. Then go on.", ["See https://a.example/x.y?z=1.", "Then go on."]),
        ("English here.日本語です。", ["English here.", "日本語です。"]),
        ("## Title\n> quoted", ["Title", "quoted"]),
        ("", []),
        (" \n ", []),
    ],
)
def test_splits_where_a_reader_would(text: str, sentences: list[str]) -> None:
    """End marks of several scripts, line breaks and list items end a sentence; abbreviations and numbers do not."""
    assert _texts(text) == sentences


@settings(deadline=None)  # cores are shared
@given(st.text())
def test_spans_are_ordered_and_cover_every_letter(text: str) -> None:
    """Spans do not overlap, are not empty, and no word outside of a list mark is lost."""
    sentences = split_sentences(text)
    ends = [0, *(sentence.end for sentence in sentences)]
    assert all(end <= sentence.start < sentence.end for end, sentence in zip(ends, sentences, strict=False))
    covered = sum(character.isalpha() for sentence in _texts(text) for character in sentence)
    assert covered >= sum(character.isalpha() for character in text) - text.count(")")


@pytest.mark.parametrize(
    ("text", "brand_terms", "words"),
    [
        ("Visit https://a.example/b?c=d, now", (), "Visit , now"),
        ("Write to me@firm.example today", (), "Write to today"),
        ("Ask @coloq about #summer", (), "Ask about"),
        ("Great 👍🏽 news ❤️!", (), "Great news !"),
        ("Run `pip install x` first", (), "Run first"),
        ("Code:\n```\nprint(1)\n```\nDone", (), "Code: Done"),
        ("12.50 Euro on 3/4/2025", (), "Euro on"),
        ("Colo and Coloq, COLOQ’s", ("coloq",), "Colo and , ’s"),
        ("Coloqは良い", ("Coloq",), "は良い"),
        ("Visual Studio Code is fine", ("Code", "Visual Studio Code"), "is fine"),
        ("#हिन्दी भाषा", (), "भाषा"),
    ],
)
def test_noise_is_blanked(text: str, brand_terms: tuple[str, ...], words: str) -> None:
    """What says nothing about a language becomes space; a brand term goes only where it stands as a whole word."""
    assert " ".join(strip_noise(text, brand_terms).split()) == words


@settings(deadline=None)  # cores are shared
@given(st.text(), st.lists(st.text(max_size=5), max_size=3))
def test_blanking_keeps_length_and_line_breaks(text: str, brand_terms: list[str]) -> None:
    """Spans of the text fit the stripped text, whatever the brand terms are."""
    clean = strip_noise(text, brand_terms)
    assert len(clean) == len(text)
    if not any("\n" in term for term in brand_terms):
        assert [i for i, c in enumerate(text) if c == "\n"] == [i for i, c in enumerate(clean) if c == "\n"]


@pytest.mark.parametrize("unit", ["a-", "a.", "1. ", "dr. ", "a@", "@a.", "-", ".", '!""', "`", "(a) ", "http://"])
def test_time_grows_with_the_text_not_with_its_square(unit: str) -> None:
    """20,000 characters as a derailed model writes them are taken apart in well under a second."""
    text = unit * (20_000 // len(unit))
    started = time.process_time()
    split_sentences(text)
    strip_noise(text, ("Coloq",))
    assert time.process_time() - started < 1.0
