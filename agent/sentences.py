"""Text taken apart for judging: sentences with their spans, and noise that says nothing about a language.

Language-free on purpose, since the language is what is to be found out. A full stop that is wrongly taken for an end
only makes a fragment, on which the language contract abstains.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.script import UNSPACED, WORD

_ABBREVIATIONS = frozenset(
    """
    approx bzgl bzw ca cf corp dept dr e.g eds etc evtl fig ggf i.e inc jr ltd mme mr mrs ms mst nr núm p.ej
    pp prof sog sr sra st tel tzn u.a usw vgl vol vs z.b
    """.split()
)

_SHORT_WORD_LETTERS = 3
"""A word as short as that before a full stop and a small letter may be an abbreviation."""

_LOOK_BACK_CHARACTERS = 32
"""As much text before a full stop decides whether it ends a sentence; a bound keeps splitting linear."""

_END = re.compile(
    rf"""
    \n
    | [.!?…]+ ['"”’»)\]*_]* (?=\s|$|[{UNSPACED}])   # alphabets: a space follows, or a script that needs none
    | [。！？｡]+ ['"”’」』）】]*                      # Chinese and Japanese write no space
    | [।॥؟۔።։។။།]+ ['"”’»)]*                       # danda; Arabic, Ethiopic, Armenian, Khmer, Burmese, Tibetan
    """,
    re.VERBOSE,
)
_LEAD = re.compile(r"(?:\s|[-*+•·–—▪◦‣●○■□✓✔→>|]+(?=\s)|#{1,6}(?=\s)|\(?\d{1,3}[.)](?=\s)|[a-zA-Z]\)(?=\s))+")
_LAST_WORD = re.compile(r"[^\s(\[\"'“„«]+$")

_EMOJI = "\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\u2190-\u21ff\u2300-\u23ff"
DOMAINS = "com|org|net|io|de|fr|es|it|pt|nl|pl|eu|app|dev|shop"
"""Endings by which an address without ``www.`` is known, as alternatives of a pattern."""
_NOISE = re.compile(
    rf"""
    ```.*?(?:```|\Z) | `[^`\n]*`                                        # code, fenced and inline
    | (?:https?://|www\.)[^\s<>"'）」]*[^\s<>"'）」.,;:!?)\]]               # web addresses, without a closing full stop
    | (?<![\w.+-])[\w.+-]{{1,64}}@[\w-]+(?:\.[\w-]+)+                       # e-mail addresses
    | (?<![\w.-])(?:[a-zA-Z0-9-]{{1,63}}\.){{1,8}}(?:{DOMAINS})\b(?:/\S*)?     # bare domains
    | (?<!\w)[@\#][{WORD}]+                                              # handles and hashtags
    | [{_EMOJI}][{_EMOJI}\ufe0e\ufe0f\u200d\u20e3]*                     # emoji with their joiners
    | \d+(?:[.,:/-]\d+)*                                                # numbers, prices, dates
    """,
    re.VERBOSE | re.DOTALL,
)
_NOT_NEWLINE = re.compile(r"[^\n]")


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text[start:end]`` of the text it was split from, without bullet and surrounding space."""

    start: int
    end: int


def split_sentences(text: str) -> list[Sentence]:
    """Sentences of ``text`` in order; line breaks and list items end one too. Text without an end is one sentence."""
    return [sentence for start, end in _pieces(text) if (sentence := _trim(text, start, end))]


def _pieces(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for mark in _END.finditer(text):
        if _ends_sentence(text, start, mark):
            yield start, mark.end()
            start = mark.end()
    yield start, len(text)


def _ends_sentence(text: str, start: int, mark: re.Match[str]) -> bool:
    """False for a full stop after an initial, a list number or an abbreviation."""
    if mark.group() != ".":
        return True
    before = text[max(start, mark.start() - _LOOK_BACK_CHARACTERS) : mark.start()]
    word_match = _LAST_WORD.search(before)
    if word_match is None:
        return True
    word = word_match.group().lower()
    if len(word) == 1 or word in _ABBREVIATIONS:
        return False
    if word.isdigit():
        return bool(before[: word_match.start()].strip()) and not _next_is_lower(text, mark.end())
    return len(word) > _SHORT_WORD_LETTERS or not _next_is_lower(text, mark.end())


def _next_is_lower(text: str, position: int) -> bool:
    rest = text[position : position + 4].lstrip()
    return rest[:1].islower()


def _trim(text: str, start: int, end: int) -> Sentence | None:
    lead = _LEAD.match(text, start, end)
    if lead:
        start = lead.end()
    end = start + len(text[start:end].rstrip())
    return Sentence(start, end) if end > start else None


def strip_noise(text: str, brand_terms: Sequence[str] = ()) -> str:
    """``text`` with spaces in place of addresses, handles, hashtags, emoji, code, numbers and brand terms.

    The result is as long as ``text`` and keeps its line breaks, so that spans fit both.
    """
    clean = _NOISE.sub(_blank, text)
    terms = _brand_pattern(brand_terms)
    return clean if terms is None else terms.sub(_blank, clean)


def _blank(noise: re.Match[str]) -> str:
    return _NOT_NEWLINE.sub(" ", noise.group())


def _brand_pattern(brand_terms: Sequence[str]) -> re.Pattern[str] | None:
    """Matches whole terms. Beside an unspaced script (``Coloqは``) a term needs no word boundary."""
    terms = sorted({term.strip() for term in brand_terms if term.strip()}, key=len, reverse=True)
    if not terms:
        return None
    letter = rf"(?![{UNSPACED}\uac00-\ud7af])\w"
    return re.compile(rf"(?<!{letter})(?:{'|'.join(map(re.escape, terms))})(?!{letter})", re.IGNORECASE)
