"""Sentences to judge: the Universal Declaration of Human Rights in 26 languages, and copy in 18.

    declaration   articles with odd numbers: for choosing thresholds       with even numbers: for what is reported
    copy          all of it is reported; no threshold was chosen by it

A reply is five sentences; a mixed one has a sentence of another language in the place of one of them.
"""

import json
import random
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from importlib.resources import files

from agent.script import count_letters
from agent.sentences import split_sentences
from service.bench.learning.prompts import read_articles

NUM_SENTENCES = 5
_SHORTEST_LETTERS = 20
_LONGEST_CHARACTERS = 250
"""The declaration has sentences of half a page, which are easy to tell and like no reply."""
_UNSPACED = ("ja", "zh")
OTHER = "en"
OTHER_OF_ENGLISH = "de"


class Split(StrEnum):
    """Which articles of the declaration are judged."""

    TUNE = "tune"
    REPORT = "report"


@dataclass(frozen=True, slots=True)
class Domain:
    """Sentences of one kind of text, by language, and short lines where it has them."""

    name: str
    sentences: Mapping[str, Sequence[str]]
    short: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Mixed:
    """A reply with one sentence in another language."""

    text: str
    start: int
    end: int
    """``text[start:end]`` is that sentence."""


def domains(split: Split) -> list[Domain]:
    """The texts of a split; copy is for reporting alone."""
    declaration = Domain("declaration", _declaration(split), {})
    return [declaration] if split is Split.TUNE else [declaration, _copy()]


@cache
def _copy() -> Domain:
    tables = tomllib.loads((files("service.bench.language") / "copy.toml").read_text(encoding="utf-8"))
    return Domain(
        "copy",
        {language: table["sentences"] for language, table in tables.items()},
        {language: table["short"] for language, table in tables.items()},
    )


@cache
def _articles() -> Mapping[str, Sequence[str]]:
    more = json.loads((files("service.bench.language") / "udhr_more.json").read_text(encoding="utf-8"))["articles"]
    return dict(sorted({**read_articles(), **more}.items()))


def _declaration(split: Split) -> Mapping[str, Sequence[str]]:
    first = 0 if split is Split.TUNE else 1  # article 1 has index 0
    return {language: _sentences(articles[first::2]) for language, articles in _articles().items()}


def _sentences(articles: Sequence[str]) -> list[str]:
    found = [article[span.start : span.end] for article in articles for span in split_sentences(article)]
    return [
        sentence
        for sentence in found
        if len(sentence) <= _LONGEST_CHARACTERS and sum(count_letters(sentence).values()) >= _SHORTEST_LETTERS
    ]


def other_language(language: str) -> str:
    """The language of the wrong sentence: English, and German in English replies."""
    return OTHER if language != OTHER else OTHER_OF_ENGLISH


def clean_replies(domain: Domain, language: str, num_replies: int) -> list[str]:
    """Replies without a wrong sentence; the same ones on every call."""
    rng = random.Random(f"{domain.name} {language} clean")
    return [_joined(rng.sample(domain.sentences[language], NUM_SENTENCES), language) for _ in range(num_replies)]


def mixed_replies(domain: Domain, language: str, num_replies: int) -> list[Mixed]:
    """Replies with one wrong sentence, at each place equally often; the same ones on every call."""
    rng = random.Random(f"{domain.name} {language} mixed")
    replies = []
    for number in range(num_replies):
        sentences = rng.sample(domain.sentences[language], NUM_SENTENCES)
        wrong = rng.choice(domain.sentences[other_language(language)])
        place = number % NUM_SENTENCES
        before = _joined([*sentences[:place], ""], language) if place else ""
        text = _joined([*sentences[:place], wrong, *sentences[place + 1 :]], language)
        replies.append(Mixed(text, len(before), len(before) + len(wrong)))
    return replies


def text_of_length(domain: Domain, language: str, num_characters: int) -> str:
    """Sentences one after the other, cut to ``num_characters``."""
    sentences = domain.sentences[language]
    repeated = [sentences[number % len(sentences)] for number in range(num_characters)]
    return _joined(repeated, language)[:num_characters]


def _joined(sentences: Sequence[str], language: str) -> str:
    return ("" if language in _UNSPACED else " ").join(sentences)
