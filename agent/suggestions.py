"""Alternatives in what a model wrote: list items, one to a line, without those that say the same again."""

import re
from collections.abc import Iterable, Sequence

from rapidfuzz import fuzz

from agent.script import WORD

_MARK = re.compile(
    r"^[ \t]*(?:(?:\(?\d{1,2}[.):]|[-*+•·–—▪◦‣●○■□]|[a-zA-Z][.)])[ \t]+|\d{1,2}[、．]\s*)(?=\S)", re.MULTILINE
)
_QUOTES = "\"'“”„«»「」『』*_ \t"
_WORDS = re.compile(rf"[{WORD}]+")
_ALIKE_PERCENT = 90
"""Alternatives that have so much of their letters in common say the same."""
_LEAST_LETTERS = 2


def split_alternatives(text: str) -> list[str]:
    """The items of a list; without one, the paragraphs of ``text``.

    What stands before the first item is an introduction and left out; lines that follow an item without a mark of
    their own belong to it.
    """
    marks = list(_MARK.finditer(text))
    if not marks:
        return [item for item in map(_trimmed, re.split(r"\n\s*\n", text)) if item]
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    items = (_trimmed(text[mark.end() : end]) for mark, end in zip(marks, ends, strict=True))
    return [item for item in items if item]


def distinct(alternatives: Iterable[str], limit: int) -> tuple[str, ...]:
    """The first ``limit`` alternatives that differ from each other in more than marks, casing and a few letters."""
    kept: list[tuple[str, str]] = []
    for alternative in alternatives:
        letters = _letters(alternative)
        if len(letters) >= _LEAST_LETTERS and not _is_known(letters, [known for known, _ in kept]):
            kept.append((letters, alternative))
        if len(kept) == limit:
            break
    return tuple(alternative for _, alternative in kept)


def _is_known(letters: str, known: Sequence[str]) -> bool:
    return any(fuzz.ratio(letters, other) >= _ALIKE_PERCENT for other in known)


def _letters(text: str) -> str:
    return " ".join(_WORDS.findall(text.casefold()))


def _trimmed(item: str) -> str:
    return item.strip().strip(_QUOTES)
