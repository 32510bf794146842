"""Text as a reader sees it: invisible characters gone, letters that look alike made one, spelled-out words joined.

A banned word with a Cyrillic ``а``, a zero-width joiner, a digit or full stops between its letters still reads as that
word. Source of the pairs: Unicode Technical Standard 39 (confusables.txt), the letters that look alike in most fonts.
"""

import re
import unicodedata
from collections.abc import Mapping

_LOOKALIKES: Mapping[int, int] = str.maketrans(
    "аеорсухіїјѕԁһԛԝӏвкмтнг" + "αεικνορτυχωβηγ" + "ıɑɡl",
    "aeopcyxiijsdhqwibkmthr" + "aeikvoptuxwbny" + "iagi",
)
_DIGITS: Mapping[int, int] = str.maketrans("013457@$!|", "oieastasii")
_DIGIT_WORD = re.compile(r"(?<![a-z])[a-z]+[013457@$!|][a-z013457@$!|]{0,40}[a-z0-9]")
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e01ef]"
)
_LATIN = re.compile("[a-z]")
_OTHER = re.compile("[\u0370-\u052f\u0131\u0251\u0261]")
_SPELLED_OUT = re.compile(r"(?<!\w)\w(?:([ .\-_*·/])\w)(?:\1\w)+(?!\w)")


def visible(text: str) -> str:
    """``text`` in Unicode's compatibility form (NFKC) and lower case, without characters that nobody sees."""
    if text.isascii():
        return text.casefold()
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).casefold()


def num_invisible(text: str) -> int:
    """Characters of ``text`` that nobody sees, joiners and marks of direction among them."""
    return 0 if text.isascii() else sum(1 for _ in _INVISIBLE.finditer(text))


def may_be_disguised(text: str) -> bool:
    """False when nothing in ``text`` (as ``visible`` returns it) looks like something else: plain text in one alphabet.

    Most text is, and its skeleton need not be made.
    """
    mixes = _LATIN.search(text) is not None and _OTHER.search(text) is not None
    return mixes or _DIGIT_WORD.search(text) is not None or _SPELLED_OUT.search(text) is not None


def skeleton(text: str) -> str:
    """A form that texts share which look alike: ``l``, ``1`` and ``i`` are one letter, and so are ``o`` and ``0``.

    ``text`` is as ``visible`` returns it; the result is no text for readers.
    """
    joined = _SPELLED_OUT.sub(lambda run: run.group().replace(run[1], ""), text)
    letters = joined.translate(_LOOKALIKES)
    return _DIGIT_WORD.sub(lambda word: word.group().translate(_DIGITS), letters)
