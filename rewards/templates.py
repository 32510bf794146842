"""The prompt's own wording in a reply: a policy that repeats its template's lines has not written a text.

Knows the templates that ship (agent.prompt), by language. Of a brief's values only those of short lines are filled in,
without a rendering: its instructions and text are rewards.substance's. Any number stands for any other, so that
"Write 5 to 8 words." is found whatever the bounds were.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from agent.brief import Brief
from agent.language import primary_code
from agent.prompt import read_templates
from rewards.words import ngram_size, ngrams, split_words

_VALUE = re.compile(r"\{\{\s*(tone|audience)\s*\}\}")
_NUMBER_VARIABLE = re.compile(r"\{\{\s*(?:min_words|max_words|alternatives)\s*\}\}")
_BREAK = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\n|[.!。！।]")
_DIGITS = re.compile(r"\d+")
_NUMBER = "0"

Words = tuple[str, ...]


def template_share(text: str, brief: Brief) -> float:
    """The share of a reply's words that are wording of its prompt's template.

    They are in a run of four words (eight letters, without spaces) that the template has too, or a whole line of it.
    Runs that the brief's instructions or text have are none: a brief may say what a template says.
    """
    lines = [words for line in _BREAK.split(text) if (words := _words(line))]
    num_words = sum(map(len, lines))
    if num_words == 0:
        return 0.0
    size = ngram_size([word for line in lines for word in line])
    wording = _wording(primary_code(brief.language), size, brief.tone, brief.audience)
    found = {run for line in lines for run in _runs(line, size) if run in wording}
    found -= set(ngrams(_words(f"{brief.instructions}\n{brief.text}"), size)) if found else set()
    return sum(_num_covered(line, found, size) for line in lines) / num_words


def _words(text: str) -> list[str]:
    return split_words(_DIGITS.sub(_NUMBER, text))


def _runs(line: list[str], size: int) -> Iterator[Words]:
    """The n-grams of a line, or the whole of one that is shorter."""
    yield from ngrams(line, size) if len(line) >= size else [tuple(line)]


def _num_covered(line: Sequence[str], found: set[Words], size: int) -> int:
    """Words of a line that are in a run which was found."""
    if len(line) < size:
        return len(line) if tuple(line) in found else 0
    covered: set[int] = set()
    for start in range(len(line) - size + 1):
        if tuple(line[start : start + size]) in found:
            covered.update(range(start, start + size))
    return len(covered)


@lru_cache(maxsize=256)
def _wording(language: str, size: int, tone: str | None, audience: str | None) -> frozenset[Words]:
    """Runs of the fixed text of a language's templates with these values, English ones where it has none."""
    values = {"tone": tone or "", "audience": audience or ""}
    lines = map(_words, _lines(_texts(language), values))
    return frozenset(run for line in lines if len(line) > 1 for run in _runs(line, size))


@lru_cache(maxsize=64)
def _texts(language: str) -> tuple[str, ...]:
    return read_templates(language)


def _lines(texts: Iterable[str], values: dict[str, str]) -> Iterator[str]:
    """Stretches of fixed text without a variable in them."""
    for text in texts:
        filled = _VALUE.sub(lambda variable: values[variable[1]], text)
        yield from _BREAK.split(_NUMBER_VARIABLE.sub(_NUMBER, filled))
