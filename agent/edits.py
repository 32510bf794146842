"""What a correction changed: the spans of the input that are replaced, each with the kind of its mistake.

The spans come from a difference of words, not from the model, so they are exact: applied to the input they give the
reply. The reason is read off the letters of both sides by rule; it names the kind of change and knows no grammar.

    casing        the same letters, large or small
    punctuation   the same letters and digits, with other marks or spaces between them
    grammar       another ending of one word, or a short word (an article, a preposition) put in, left out or exchanged
    spelling      one word for another that is written almost alike
    wording       anything else
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from rapidfuzz.distance import OSA, Indel

from agent.script import UNSPACED, WORD


class Reason(StrEnum):
    """The kind of a change; see the module's text for the rules."""

    SPELLING = "spelling"
    PUNCTUATION = "punctuation"
    CASING = "casing"
    GRAMMAR = "grammar"
    WORDING = "wording"


@dataclass(frozen=True, slots=True)
class Edit:
    """``source[start:end]`` becomes ``replacement``; positions are Unicode code points of the input."""

    start: int
    end: int
    replacement: str
    reason: Reason


_TOKEN = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[{WORD}])+|\s+|.", re.DOTALL)
_STEM_LETTERS = 3
"""Two words with at least so many first letters in common may be forms of one word."""
_ENDING_LETTERS = 3
"""Letters that an ending has at most."""
_SHORT_WORD_LETTERS = 4
_LIKENESS = 0.5
"""Share of letters that two spellings of one word have in common, at least."""


def find_edits(source: str, corrected: str) -> tuple[Edit, ...]:
    """Edits that turn ``source`` into ``corrected``, in order and without overlap.

    White space around either text is no edit: replies come without it.
    """
    offset = len(source) - len(source.lstrip())
    before, after = _tokens(source.strip()), _tokens(corrected.strip())
    edits, position = [], offset
    for removed, added in _changes(before, after):
        start, old = position + removed.start, removed.text
        edits.append(Edit(start, start + len(old), added, reason_of(old, added)))
    return tuple(edits)


def apply_edits(source: str, edits: Sequence[Edit]) -> str:
    """``source`` with ``edits`` made."""
    parts, position = [], 0
    for edit in edits:
        parts += [source[position : edit.start], edit.replacement]
        position = edit.end
    return "".join([*parts, source[position:]])


def reason_of(old: str, new: str) -> Reason:
    """The kind of one change, by rule."""
    if _marks_aside(old) == _marks_aside(new):
        return Reason.PUNCTUATION
    if old.casefold() == new.casefold():
        return Reason.CASING
    before, after = old.casefold().strip(), new.casefold().strip()
    if " " in before or " " in after:
        return Reason.WORDING
    if not before or not after:
        return Reason.GRAMMAR if len(before + after) <= _SHORT_WORD_LETTERS else Reason.WORDING
    return _reason_of_words(before, after)


def _reason_of_words(before: str, after: str) -> Reason:
    common = len(_common_start(before, after))
    endings = max(len(before), len(after)) - common
    if common >= _STEM_LETTERS and endings <= _ENDING_LETTERS and len(before) != len(after):
        return Reason.GRAMMAR
    if OSA.normalized_similarity(before, after) >= _LIKENESS:
        return Reason.SPELLING
    short = max(len(before), len(after)) <= _SHORT_WORD_LETTERS
    return Reason.GRAMMAR if short else Reason.WORDING


def _common_start(one: str, other: str) -> str:
    length = next((index for index, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), None)
    return one[: min(len(one), len(other)) if length is None else length]


def _marks_aside(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _tokens(text: str) -> list[str]:
    """Words, single characters of scripts without spaces, runs of white space, and marks one by one."""
    return _TOKEN.findall(text)


@dataclass(frozen=True, slots=True)
class _Removed:
    start: int
    text: str


def _changes(before: list[str], after: list[str]) -> list[tuple[_Removed, str]]:
    """What goes and what comes in its place; changes that touch, or have only a space between, are one."""
    starts = [0]
    for token in before:
        starts.append(starts[-1] + len(token))
    spans: list[tuple[int, int, int, int]] = []
    for code in Indel.opcodes(before, after):
        if code.tag == "equal":
            continue
        if spans and spans[-1][1] == code.src_start and spans[-1][3] == code.dest_start:
            first = spans.pop()
            spans.append((first[0], code.src_end, first[2], code.dest_end))
        else:
            spans.append((code.src_start, code.src_end, code.dest_start, code.dest_end))
    return [
        (_Removed(starts[src_start], "".join(before[src_start:src_end])), "".join(after[dest_start:dest_end]))
        for src_start, src_end, dest_start, dest_end in spans
    ]
