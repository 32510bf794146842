"""Writing systems: which script a letter belongs to, and how much text a letter stands for.

Ranges follow the blocks of the Unicode standard (Blocks.txt), enough to tell scripts apart; rare historic extensions
are left out. Knows nothing of languages.
"""

import re
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache


class Script(StrEnum):
    """A writing system. Hiragana and Katakana are one, since no text uses only one of them for long."""

    LATIN = "Latin"
    CYRILLIC = "Cyrillic"
    GREEK = "Greek"
    ARMENIAN = "Armenian"
    GEORGIAN = "Georgian"
    HEBREW = "Hebrew"
    ARABIC = "Arabic"
    THAANA = "Thaana"
    DEVANAGARI = "Devanagari"
    BENGALI = "Bengali"
    GURMUKHI = "Gurmukhi"
    GUJARATI = "Gujarati"
    ORIYA = "Oriya"
    TAMIL = "Tamil"
    TELUGU = "Telugu"
    KANNADA = "Kannada"
    MALAYALAM = "Malayalam"
    SINHALA = "Sinhala"
    THAI = "Thai"
    LAO = "Lao"
    KHMER = "Khmer"
    MYANMAR = "Myanmar"
    TIBETAN = "Tibetan"
    ETHIOPIC = "Ethiopic"
    MONGOLIAN = "Mongolian"
    HANGUL = "Hangul"
    KANA = "Kana"
    HAN = "Han"


_RANGES: Mapping[Script, str] = {
    Script.LATIN: r"A-Za-z\u00AA\u00BA\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u02AF\u1E00-\u1EFF\uFF21-\uFF3A\uFF41-\uFF5A",
    Script.CYRILLIC: r"\u0400-\u052F\u1C80-\u1C8F\uA640-\uA69F",
    Script.GREEK: r"\u0370-\u037D\u037F-\u03FF\u1F00-\u1FFF",
    Script.ARMENIAN: r"\u0531-\u0587",
    Script.GEORGIAN: r"\u10A0-\u10FF\u1C90-\u1CBF",
    Script.HEBREW: r"\u05D0-\u05F2",
    Script.ARABIC: (
        r"\u0620-\u065F\u066E-\u06D3\u06D5-\u06DC\u06FA-\u06FF\u0750-\u077F"
        r"\u08A0-\u08FF\uFB50-\uFDFB\uFE70-\uFEFC"
    ),
    Script.THAANA: r"\u0780-\u07BF",
    Script.DEVANAGARI: r"\u0900-\u0963\u0971-\u097F",
    Script.BENGALI: r"\u0980-\u09E3\u09F0-\u09FE",
    Script.GURMUKHI: r"\u0A00-\u0A65\u0A70-\u0A76",
    Script.GUJARATI: r"\u0A80-\u0AE3",
    Script.ORIYA: r"\u0B00-\u0B65\u0B71",
    Script.TAMIL: r"\u0B80-\u0BE5",
    Script.TELUGU: r"\u0C00-\u0C65",
    Script.KANNADA: r"\u0C80-\u0CE5",
    Script.MALAYALAM: r"\u0D00-\u0D65\u0D7A-\u0D7F",
    Script.SINHALA: r"\u0D80-\u0DE5\u0DF2-\u0DF3",
    Script.THAI: r"\u0E01-\u0E3A\u0E40-\u0E4E",
    Script.LAO: r"\u0E80-\u0ECF\u0EDC-\u0EDF",
    Script.KHMER: r"\u1780-\u17D3",
    Script.MYANMAR: r"\u1000-\u103F\u1050-\u108F",
    Script.TIBETAN: r"\u0F00\u0F40-\u0FBC",
    Script.ETHIOPIC: r"\u1200-\u135F\u1380-\u139F\u2D80-\u2DDF",
    Script.MONGOLIAN: r"\u1820-\u18AA",
    Script.HANGUL: r"\u1100-\u11FF\u3130-\u318F\uAC00-\uD7AF",
    Script.KANA: r"\u3041-\u309F\u30A1-\u30FA\u30FC-\u30FF\u31F0-\u31FF\uFF66-\uFF9D",
    Script.HAN: r"\u3005\u3007\u3400-\u4DBF\u4E00-\u9FFF\uF900-\uFAFF\U00020000-\U0003134F",
}

UNSPACED = r"".join(
    _RANGES[script] for script in (Script.HAN, Script.KANA, Script.THAI, Script.LAO, Script.KHMER, Script.MYANMAR)
)
"""Inside of a character class: letters of scripts that put no space between words."""

WORD = (
    r"\w\u0300-\u036F\u0591-\u05C7\u064B-\u0655\u07A6-\u07B0\u0900-\u0963\u0966-\u0DDF"
    r"\u1000-\u109F\u0F18-\u0FBC\u200C\u200D"
)
"""Inside of a character class: what words are made of, with the vowel signs and joiners that ``\\w`` leaves out."""

_DENSE_LETTERS = 3
"""An ideograph or a syllable block says about as much as three letters of an alphabet."""

_WEIGHTS: Mapping[Script, int] = dict.fromkeys((Script.HAN, Script.KANA, Script.HANGUL), _DENSE_LETTERS)

_LETTER = re.compile("|".join(f"(?P<{script.name}>[{ranges}])" for script, ranges in _RANGES.items()))


@lru_cache(maxsize=16_384)
def _script_of(letter: str) -> Script | None:
    """The script of one character; None for what is no letter of any. Texts repeat few characters, so that is kept."""
    match = _LETTER.match(letter)
    return None if match is None else Script[match.lastgroup or ""]


def count_letters(text: str) -> dict[Script, int]:
    """Letters of ``text`` by script, in letters of an alphabet: one ideograph or syllable block counts three."""
    counts: dict[Script, int] = {}
    for letter, number in Counter(text).items():
        script = _script_of(letter)
        if script is not None:
            counts[script] = counts.get(script, 0) + number * _WEIGHTS.get(script, 1)
    return counts
