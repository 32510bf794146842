"""Finding a term in a reply: whole words in any inflected form, whatever the script.

Words are reduced to their stems by Snowball's stemmers (36 languages). In other languages a word may end in up to three
more letters than the term. Scripts without spaces have no words, so a term counts wherever it stands there.

One word has several spellings where a language leaves marks out: Arabic and Hebrew vowels, the dots of a Russian ё, the
accents of Greek capitals. What is written in one word with it, an Arabic article or a Hebrew preposition, is no part.
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
_OPTIONAL_MARKS = re.compile("[\u0591-\u05c7\u0640\u064b-\u0652\u0670]")
"""Points of Hebrew, vowel signs of Arabic and the stroke that stretches its words."""
_DOT_OF_CAPITAL = "i\u0307"
"""What Unicode makes of a Turkish İ in lower case."""
_TURKIC = frozenset(("tr", "az"))
_TURKIC_CAPITALS: Mapping[int, str] = {ord("I"): "ı", ord("İ"): "i"}
_DOTLESS = "\u0269"
"""Stands for a Turkic ı, which is a letter there and no disguise of i."""
_GREEK_CAPITALS = re.compile("[\u0370-\u03ff\u1f00-\u1fff]{2,}")
_PROCLITICS: Mapping[str, tuple[tuple[re.Pattern[str], int], ...]] = {
    "ar": ((re.compile("[وف]?(?:[بك]?ال|لل)"), 3), (re.compile("[وفبكل]"), 4)),
    "he": ((re.compile("[ושכ]?ה"), 3), (re.compile("[ובכלמש]{1,2}"), 4)),
}
"""By language: what may stand before a word, and the fewest letters that are then a word of its own."""


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
        seen = _spelled(text, self._language)
        disguised = (_looks(seen, self._language),) if may_be_disguised(seen) else ()
        forms = dict.fromkeys((seen, *disguised, *_capitals_read(text, self._language)))
        self._squeezed = _SEPARATORS.sub("", seen)
        self._lines = [_Line(_WORD.findall(form), self._language) for form in forms]

    def holds(self, term: str) -> bool:
        wanted = _forms(term, self._language)
        if wanted.squeezed is not None:
            return wanted.squeezed in self._squeezed
        return any(line.holds(words) for line in self._lines for words in wanted.words)


class _Line:
    """Words in order, found by how they begin."""

    def __init__(self, words: Sequence[str], language: str) -> None:
        self._words = [_readings(word, language) for word in words]
        self._language = language
        self._starts: dict[str, list[int]] = {}
        for number, readings in enumerate(self._words):
            for start in dict.fromkeys(reading[:_PREFIX_LETTERS] for reading in readings):
                self._starts.setdefault(start, []).append(number)

    def holds(self, wanted: Sequence[str]) -> bool:
        """True when ``wanted`` stands in this line, one word after the other."""
        starts = self._starts.get(wanted[0][:_PREFIX_LETTERS], ()) if wanted else ()
        return any(self._runs(start, wanted) for start in starts)

    def _runs(self, start: int, wanted: Sequence[str]) -> bool:
        words = self._words[start : start + len(wanted)]
        return len(words) == len(wanted) and all(
            any(is_form_of(reading, term, self._language) for reading in readings)
            for readings, term in zip(words, wanted, strict=True)
        )


@dataclass(frozen=True, slots=True)
class _Forms:
    """A term as it is looked for."""

    words: tuple[tuple[str, ...], ...]
    squeezed: str | None
    """Without its spaces, when its script writes none."""


@lru_cache(maxsize=4096)
def _forms(term: str, language: str) -> _Forms:
    seen = _spelled(term, language)
    forms = [seen, _looks(seen, language), *_capitals_read(term, language)]
    forms += [_bare(seen)] if language == "el" else []
    words = tuple(tuple(_WORD.findall(form)) for form in dict.fromkeys(forms))
    return _Forms(words, _SEPARATORS.sub("", seen) if _UNSPACED_LETTER.search(seen) else None)


def _spelled(text: str, language: str) -> str:
    """``text`` as it is visible, without marks that its language writes or leaves out as it likes."""
    seen = visible(text)
    if seen.isascii():
        return seen
    plain = _OPTIONAL_MARKS.sub("", seen).replace(_DOT_OF_CAPITAL, "i")
    return plain.replace("ё", "е") if language == "ru" else plain


def _looks(seen: str, language: str) -> str:
    return skeleton(seen.replace("ı", _DOTLESS) if language in _TURKIC else seen)


def _capitals_read(text: str, language: str) -> tuple[str, ...]:
    """``text`` with its capitals as its language reads them, where Unicode's lower case is another word.

    A Turkish ``I`` is ``ı``; Greek words in capitals have no accents, so they lose what they were given.
    """
    if language in _TURKIC and ("I" in text or "İ" in text):
        return (_spelled(text.translate(_TURKIC_CAPITALS), language),)
    if language == "el":
        return (_spelled(_GREEK_CAPITALS.sub(_bare_capitals, text), language),)
    return ()


def _bare_capitals(word: re.Match[str]) -> str:
    return _bare(word.group()) if word.group().isupper() else word.group()


def _readings(word: str, language: str) -> tuple[str, ...]:
    """A word, and what is left of it without what its language writes before words."""
    found = (
        word[start.end() :]
        for pattern, fewest in _PROCLITICS.get(language, ())
        if (start := pattern.match(word)) is not None and len(word) - start.end() >= fewest
    )
    return (word, *found)


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
