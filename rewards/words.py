"""Words of a text in any script, counted as people count them there.

Chinese and Japanese count characters. Thai, Lao, Khmer and Burmese write no spaces either, but do count words: there a
word is taken as four letters, close to the mean of running Thai text.
"""

import re

from agent.script import UNSPACED, WORD

_SPACED_RUN = rf"(?:(?![{UNSPACED}])[{WORD}])+"
_TOKEN = re.compile(rf"[{UNSPACED}]|{_SPACED_RUN}(?:['\u2019\u2011-]{_SPACED_RUN})*")
_SYLLABIC = re.compile(r"[\u0E01-\u0E2E\u0E81-\u0EAE\u1000-\u102A\u1780-\u17B3]")
_SYLLABIC_OTHER = re.compile(r"[\u0E2F-\u0E4E\u0EAF-\u0ECF\u102B-\u103F\u1050-\u108F\u17B4-\u17D3]")
_LETTERS_PER_WORD = 4


def split_words(text: str) -> list[str]:
    """Words in lower case; in scripts without spaces every letter stands alone."""
    return _TOKEN.findall(text.casefold())


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
