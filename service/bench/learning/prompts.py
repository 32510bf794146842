"""Prompts in many languages, half of them about real texts: a training set and a held-out set that share nothing.

    articles of the UDHR ─► correct (with mistakes put in), summarise, continue ─┐
    forms x topics x tones x lengths ─► write ───────────────────────────────────┴─► briefs, by language in turn

An article or a topic is held out in every language or in none: a policy cannot have met it in a translation. Everything
follows from the seed.
"""

import json
import random
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain, islice, product

from agent.brief import Brief, Kind
from agent.errors import InvalidInput
from agent.sentences import split_sentences
from service.bench.node import TENANT

LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "sv", "pl", "cs", "tr", "ru", "uk", "ar", "ja", "zh")
"""Latin, Cyrillic, Arabic and East Asian scripts. `ru` borrows English templates (agent.prompt)."""
_NUM_ARTICLES, NUM_TOPICS = 30, 12
_HELD_OUT_ARTICLES, _HELD_OUT_TOPICS = 9, 4
_TEXT_BYTES, _BEGINNING_BYTES = 240, 120
"""Of UTF-8. A tokenizer that falls back to bytes makes no more tokens than these, whatever the script."""
_NUM_MISTAKES = 3
_LENGTHS = ((None, 25), (10, 20), (15, 30))
_SUMMARY_WORDS, _CONTINUATION_WORDS = 20, 30


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Briefs to train on and to be examined on."""

    train: tuple[Brief, ...]
    held_out: tuple[Brief, ...]


@dataclass(frozen=True, slots=True)
class Wording:
    """How one language asks for texts."""

    summarise: str
    continue_: str
    write: str
    forms: tuple[str, ...]
    tones: tuple[str, ...]
    topics: tuple[str, ...]


def make_prompts(languages: Sequence[str], num_train: int, num_held_out: int, *, seed: int) -> PromptSet:
    """Prompts of both sets, languages in turn, so that any beginning of a set is balanced.

    Args:
        num_train, num_held_out: of all languages together.

    Raises:
        InvalidInput: a language has no texts, or a set has fewer prompts than that.
    """
    wordings, articles = read_wordings(), read_articles()
    unknown = [language for language in languages if language not in articles]
    if unknown or not languages:
        raise InvalidInput("--languages", f"must be of {', '.join(LANGUAGES)}, got {', '.join(unknown) or 'none'}")
    article_numbers, topic_numbers = _shuffled(_NUM_ARTICLES, seed), _shuffled(NUM_TOPICS, seed)
    held_out = _Material(article_numbers[:_HELD_OUT_ARTICLES], topic_numbers[:_HELD_OUT_TOPICS])
    train = _Material(article_numbers[_HELD_OUT_ARTICLES:], topic_numbers[_HELD_OUT_TOPICS:])

    def draw(material: _Material, num_prompts: int, option: str) -> tuple[Brief, ...]:
        streams = [_briefs(code, wordings[code], articles[code], material, seed) for code in languages]
        drawn = tuple(islice(chain.from_iterable(zip(*streams, strict=True)), num_prompts))
        if len(drawn) < num_prompts:
            raise InvalidInput(option, f"must be at most {len(drawn)} for {len(languages)} languages")
        return drawn

    return PromptSet(draw(train, num_train, "--train-prompts"), draw(held_out, num_held_out, "--held-out-prompts"))


def writing_briefs(language: str, topics: Sequence[int], chance: random.Random) -> list[Brief]:
    """Each form of text about each topic, in each tone and length, shuffled."""
    wording = read_wordings()[language]
    briefs = [
        _writing(language, wording, topic, form, tone, length)
        for topic, form, tone, length in product(topics, wording.forms, wording.tones, _LENGTHS)
    ]
    chance.shuffle(briefs)
    return briefs


def read_articles() -> Mapping[str, Sequence[str]]:
    """Articles 1 to 30 by language; the file names their source."""
    articles: dict[str, list[str]] = json.loads(_text("udhr.json"))["articles"]
    return articles


def read_wordings() -> Mapping[str, Wording]:
    """How each language asks for texts."""
    return {
        language: Wording(
            summarise=table["summarise"],
            continue_=table["continue"],
            write=table["write"],
            forms=tuple(table["forms"]),
            tones=tuple(table["tones"]),
            topics=tuple(table["topics"]),
        )
        for language, table in tomllib.loads(_text("briefs.toml")).items()
    }


def excerpt(text: str, max_bytes: int) -> str:
    """The sentences at the text's beginning that fit; when the first does not, as much of it as fits, whole words where
    the script has them."""
    fitting = [span.end for span in split_sentences(text) if len(text[: span.end].encode()) <= max_bytes]
    if fitting:
        return text[: fitting[-1]].strip()
    cut = text.encode()[:max_bytes].decode(errors="ignore")
    whole, space, _ = cut.rpartition(" ")
    return whole if space and len(text) > len(cut) else cut


def with_mistakes(text: str, chance: random.Random) -> str:
    """The text with letters exchanged, lost or doubled inside of words."""
    for _ in range(_NUM_MISTAKES):
        places = [at for at in range(1, len(text) - 1) if text[at - 1 : at + 2].isalpha()]
        if not places:
            return text
        at = chance.choice(places)
        changed = chance.choice((text[at] + text[at - 1], text[at - 1], text[at - 1] + text[at] * 2))
        text = text[: at - 1] + changed + text[at + 1 :]
    return text


@dataclass(frozen=True, slots=True)
class _Material:
    """What one set may be made from."""

    articles: Sequence[int]
    topics: Sequence[int]


def _briefs(
    language: str, wording: Wording, articles: Sequence[str], material: _Material, seed: int
) -> Iterator[Brief]:
    """Each brief once, the four sorts of work in turn while they last equally long."""
    chance = random.Random(f"{seed} {language}")
    texts = [articles[number] for number in material.articles]
    sorts: tuple[Callable[[str], Brief], ...] = (
        lambda text: _correction(language, text, chance),
        lambda text: _summary(language, wording, text),
        lambda text: _continuation(language, wording, text),
    )
    written = writing_briefs(language, material.topics, chance)
    streams = [[make(text) for text in chance.sample(texts, len(texts))] for make in sorts]
    return chain.from_iterable(zip(*streams, written[: len(texts)], strict=True))


def _correction(language: str, text: str, chance: random.Random) -> Brief:
    return Brief(TENANT, Kind.CORRECT, language, text=with_mistakes(excerpt(text, _TEXT_BYTES), chance))


def _summary(language: str, wording: Wording, text: str) -> Brief:
    given = excerpt(text, _TEXT_BYTES)
    return Brief(TENANT, Kind.CREATE, language, instructions=wording.summarise, text=given, max_words=_SUMMARY_WORDS)


def _continuation(language: str, wording: Wording, text: str) -> Brief:
    given = excerpt(text, _BEGINNING_BYTES)
    return Brief(
        TENANT, Kind.CREATE, language, instructions=wording.continue_, text=given, max_words=_CONTINUATION_WORDS
    )


def _writing(
    language: str, wording: Wording, topic: int, form: str, tone: str, length: tuple[int | None, int]
) -> Brief:
    instructions = wording.write.format(form=form, topic=wording.topics[topic])
    fewest, most = length
    return Brief(TENANT, Kind.CREATE, language, instructions=instructions, tone=tone, min_words=fewest, max_words=most)


def _shuffled(count: int, seed: int) -> list[int]:
    return random.Random(f"{seed} {count}").sample(range(count), count)


def _text(name: str) -> str:
    return (files("service.bench.learning") / name).read_text(encoding="utf-8")
