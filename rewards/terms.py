"""Finding a term in a reply: whole words in any inflected form, whatever the script.

Words are reduced to their stems by Snowball's stemmers (36 languages). In other languages a word may end in up to three
more letters than the term. Scripts without spaces have no words, so a term counts wherever it stands there.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from unicodedata import combining, normalize

import Stemmer
from rapidfuzz.distance import Prefix

from agent.language import find_language, primary_code
from agent.script import UNSPACED, WORD
from rewards.lookalikes import may_be_disguised, skeleton, visible

_SHORTEST_INFLECTED = 4
"""Shorter terms count in their own form alone."""
_ENDING_LETTERS = 3
_PREFIX_LETTERS = 2
"""No word is compared with a term that does not begin like it."""
_WORD = re.compile(rf"[{WORD}]+")
_SEPARATORS = re.compile(r"[\s.\-_*·/]+")
_UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")
_AGGLUTINATIVE: Mapping[str, int] = {"ko": 2, "he": 3, "ar": 3, "fa": 3, "ur": 3, "tr": 4, "fi": 4, "hu": 4, "et": 4}
"""Languages that hang particles on a word: from so many letters on, a term may begin one."""
_COMPARATIVES: Mapping[str, tuple[str, ...]] = {"en": ("er", "est", "ier", "iest")}
"""Endings that a language's stemmer leaves on."""


def find_terms(text: str, terms: Sequence[str], language: str) -> list[str]:
    """Those of ``terms`` that stand in ``text``, in the order of ``terms``; ``language`` is that of ``text``."""
    if not terms:
        return []
    page = _Page(text, language)
    return [term for term in terms if page.holds(term)]


class _Page:
    """A text prepared for looking terms up, as it is written and as it looks."""

    def __init__(self, text: str, language: str) -> None:
        self._language = primary_code(language)
        seen = visible(text)
        forms = (seen, skeleton(seen)) if may_be_disguised(seen) else (seen,)
        self._squeezed = _SEPARATORS.sub("", seen)
        self._lines = [_Line(_WORD.findall(form), self._language) for form in forms]

    def holds(self, term: str) -> bool:
        wanted = _forms(term)
        if wanted.squeezed is not None:
            return wanted.squeezed in self._squeezed
        return any(line.holds(words) for line in self._lines for words in wanted.words)


class _Line:
    """Words in order, found by how they begin."""

    def __init__(self, words: Sequence[str], language: str) -> None:
        self._words = words
        self._language = language
        self._starts: dict[str, list[int]] = {}
        for number, word in enumerate(words):
            self._starts.setdefault(word[:_PREFIX_LETTERS], []).append(number)

    def holds(self, wanted: Sequence[str]) -> bool:
        """True when ``wanted`` stands in this line, one word after the other."""
        starts = self._starts.get(wanted[0][:_PREFIX_LETTERS], ()) if wanted else ()
        return any(self._runs(start, wanted) for start in starts)

    def _runs(self, start: int, wanted: Sequence[str]) -> bool:
        words = self._words[start : start + len(wanted)]
        return len(words) == len(wanted) and all(
            is_form_of(word, term, self._language) for word, term in zip(words, wanted, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Forms:
    """A term as it is looked for."""

    words: tuple[tuple[str, ...], ...]
    squeezed: str | None
    """Without its spaces, when its script writes none."""


@lru_cache(maxsize=4096)
def _forms(term: str) -> _Forms:
    seen = visible(term)
    words = tuple(tuple(_WORD.findall(form)) for form in dict.fromkeys((seen, skeleton(seen))))
    return _Forms(words, _SEPARATORS.sub("", seen) if _UNSPACED_LETTER.search(seen) else None)


def is_form_of(word: str, term: str, language: str) -> bool:
    """True when ``word`` is ``term``, perhaps inflected, in a language (ISO 639-1). Both are one word in lower case."""
    if word == term:
        return True
    if word.startswith(term) and len(term) >= _AGGLUTINATIVE.get(language, len(word)):
        return True
    if len(term) < _SHORTEST_INFLECTED or word[:_PREFIX_LETTERS] != term[:_PREFIX_LETTERS]:
        return False
    if len(word) == len(term) and _bare(word) == _bare(term):
        return False  # schon and schön, salé and sale: stemmers take marks off, which tell words apart
    stem = _stemmer(language)
    if stem is None:
        return _differs_in_ending(word, term)
    return stem(word) == stem(term) or word in {term + ending for ending in _COMPARATIVES.get(language, ())}


def _bare(word: str) -> str:
    """A word without the marks on its letters."""
    return "".join(letter for letter in normalize("NFD", word) if not combining(letter))


def _differs_in_ending(word: str, term: str) -> bool:
    """For languages without a stemmer: up to two letters of the term give way to up to three others."""
    common = Prefix.similarity(word, term)
    return common >= max(_SHORTEST_INFLECTED, len(term) - 2) and len(word) - common <= _ENDING_LETTERS


@lru_cache(maxsize=64)
def _stemmer(language: str) -> Callable[[str], str] | None:
    """Snowball's stemmer of a language, which remembers words; None when there is none."""
    row = find_language(language)
    name = row.name.lower() if row is not None else ""
    if name not in Stemmer.algorithms():
        return None

    @lru_cache(maxsize=4096)
    def stem(word: str) -> str:
        # One for each word: a stemmer is not for several threads, and takes less than a microsecond to make.
        return str(Stemmer.Stemmer(name, 0).stemWord(word))

    return stem
