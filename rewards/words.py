"""Words of a text in any script, counted as people count them there.

Chinese and Japanese count characters. Thai, Lao, Khmer and Burmese write no spaces either, but do count words: there a
word is taken as four letters, close to the mean of running Thai text.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from agent.script import UNSPACED, WORD

_SPACED_RUN = rf"(?:(?![{UNSPACED}])[{WORD}])+"
_TOKEN = re.compile(rf"[{UNSPACED}]|{_SPACED_RUN}(?:['\u2019\u2011-]{_SPACED_RUN})*")
_SYLLABIC = re.compile(r"[\u0E01-\u0E2E\u0E81-\u0EAE\u1000-\u102A\u1780-\u17B3]")
_SYLLABIC_OTHER = re.compile(r"[\u0E2F-\u0E4E\u0EAF-\u0ECF\u102B-\u103F\u1050-\u108F\u17B4-\u17D3]")
_FIRST_UNSPACED = "\u0e01"
_FIRST_HANGUL, _LAST_HANGUL = "\uac00", "\ud7af"
_LETTERS_PER_WORD = 4
_WORD_NGRAM = 4
_LETTER_NGRAM = 8
"""Scripts without spaces yield letters, of which eight say about as much as four words."""


def split_words(text: str) -> list[str]:
    """Words in lower case; in scripts without spaces every letter stands alone."""
    return list(_split(text))


@lru_cache(maxsize=256)
def _split(text: str) -> tuple[str, ...]:
    """Several rules ask for the words of one reply, and all replies to a brief for the brief's."""
    return tuple(_TOKEN.findall(text.casefold()))


def count_words(text: str) -> int:
    """Number of words; characters in Chinese and Japanese, a quarter of the base letters in Thai and its like."""
    num_base = num_other = num_words = 0
    for token in split_words(text):
        num_base += _SYLLABIC.fullmatch(token) is not None
        num_other += _SYLLABIC_OTHER.fullmatch(token) is not None
        num_words += 1
    return num_words - num_base - num_other + -(-num_base // _LETTERS_PER_WORD)


def ngrams(words: list[str], size: int) -> list[tuple[str, ...]]:
    """Runs of ``size`` words, in order; empty when there are fewer."""
    return [tuple(words[start : start + size]) for start in range(len(words) - size + 1)]


def is_spaced(words: Sequence[str]) -> bool:
    """False when most of ``words`` are letters of a script without spaces."""
    return 2 * sum(map(_stands_alone, words)) <= len(words)


def _stands_alone(word: str) -> bool:
    return len(word) == 1 and word >= _FIRST_UNSPACED and not _FIRST_HANGUL <= word <= _LAST_HANGUL


def ngram_size(words: Sequence[str]) -> int:
    """How many of these words make an n-gram that says something: four, or eight where letters stand alone."""
    return _WORD_NGRAM if is_spaced(words) else _LETTER_NGRAM
