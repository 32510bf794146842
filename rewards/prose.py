"""Prose: a reply is text to be read, not a flood of symbols, digits, hidden characters or one word again and again.

Each measure is free up to what honest copy shows (a few emoji, a price list, a keyword used twice) and costs everything
well beyond it. Sources of the cases: keyword stuffing and padding are what a judge of length and keywords invites.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from agent.brief import Brief, Kind
from agent.script import WORD
from agent.structure import prose_of
from rewards.leakage import asks_for_code
from rewards.lookalikes import num_invisible, visible
from rewards.part import RuleInput
from rewards.words import is_spaced, split_words

_FEW_WORDS = 8
"""Shares of fewer words say nothing."""
_LONG_WORD = 4
"""Articles and the like are shorter, and may come often."""
_STUFFED_FROM = 3
"""A keyword's third occurrence is the first that may be one too many."""
_SHORT_WORD_LETTERS = 2.0
_SEPARATOR = re.compile("[,、،，;；|/·•]")
_SYMBOL = re.compile(rf"[^{WORD}\s]")
_EMOJI = re.compile("[\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff]")
_DIGIT = re.compile(r"\d")
_SPACE = re.compile(r"\s")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_DENSE = re.compile("[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_DENSE_LETTERS = 3
"""An ideograph or a syllable block says about as much as three letters of an alphabet."""
_JOINED_SCRIPT = re.compile(
    "[\u0590-\u08ff\u0900-\u0dff\u0e00-\u109f\u1780-\u18af]|[\u2190-\u2bff\ufe0f]|[\U0001f000-\U0001faff]"
)
"""Scripts that write with joiners, and emoji, which are built with them."""


class Prose:
    """Whether a reply is text to be read."""

    name = "prose"

    def judge(self, given: RuleInput) -> float:
        """See prose_value."""
        return prose_value(given.sample.text, given.sample.brief)


def prose_value(text: str, brief: Brief) -> float:
    """The worst of seven measures, each 1 in honest copy. Of a structured reply the strings alone are judged, and of a
    conversation about code what stands outside of its fences."""
    text = text if brief.schema is None else prose_of(text)
    if brief.kind is Kind.CHAT and "```" in text and asks_for_code(brief):
        text = _FENCED.sub(" ", text)
    marks, given = _Marks.of(text), _given_marks(brief.text)
    words = split_words(text)
    values = [
        _falling(marks.symbols, free=max(0.3, given.symbols), worthless=max(0.6, given.symbols + 0.3)),
        _falling(marks.emoji, free=0.12, worthless=0.3),
        _falling(marks.digits, free=max(0.3, given.digits), worthless=max(0.55, given.digits + 0.25)),
        _falling(_hidden_share(text), free=0.01, worthless=0.1),
        _falling(_stuffed_share(text, brief.keywords), free=0.08, worthless=0.3),
    ]
    if len(words) >= _FEW_WORDS and is_spaced(words):
        values += [_falling(_top_share(words), free=0.25, worthless=0.5), _list_value(text, words)]
    return min(values)


@dataclass(frozen=True, slots=True)
class _Marks:
    """Shares of a text, in which an ideograph counts as three letters of an alphabet."""

    symbols: float
    """Punctuation, emoji and whatever else is neither letter nor digit nor space."""
    emoji: float
    digits: float

    @classmethod
    def of(cls, text: str) -> "_Marks":
        num_symbols, num_digits = len(_SYMBOL.findall(text)), len(_DIGIT.findall(text))
        num_emoji = len(_EMOJI.findall(text))
        num_spaces = len(_SPACE.findall(text))
        total = max(1, len(text) - num_spaces + (_DENSE_LETTERS - 1) * len(_DENSE.findall(text)))
        return cls(num_symbols / total, num_emoji / total, num_digits / total)


@lru_cache(maxsize=64)
def _given_marks(text: str) -> _Marks:
    return _Marks.of(text)


def _falling(share: float, *, free: float, worthless: float) -> float:
    """1 up to ``free``, 0 from ``worthless`` on, a straight line between."""
    return min(1.0, max(0.0, (worthless - share) / (worthless - free)))


def _hidden_share(text: str) -> float:
    """Characters that nobody sees, of all; 0 where a script or an emoji is written with joiners."""
    num_hidden = num_invisible(text)
    return 0.0 if num_hidden == 0 or _JOINED_SCRIPT.search(text) else num_hidden / max(len(text), 1)


def _stuffed_share(text: str, keywords: Sequence[str]) -> float:
    """Letters of keywords from their third occurrence on, of all letters."""
    if not keywords:
        return 0.0
    seen = visible(text)
    terms = {visible(keyword).strip() for keyword in keywords} - {""}
    extra = sum(max(0, seen.count(term) - _STUFFED_FROM + 1) * len(term) for term in terms)
    return extra / max(len(seen), 1)


def _top_share(words: Sequence[str]) -> float:
    """The share of the long word that comes most often."""
    counts = Counter(word for word in words if len(word) >= _LONG_WORD)
    return max(counts.values(), default=0) / len(words)


def _list_value(text: str, words: Sequence[str]) -> float:
    """1 for running text; less for words strung together by separators, and for letters that stand alone."""
    separators = sum(1 for _ in _SEPARATOR.finditer(text)) / len(words)
    letters = sum(map(len, words)) / len(words)
    return min(1.0, _falling(separators, free=0.4, worthless=0.8), letters / _SHORT_WORD_LETTERS)
