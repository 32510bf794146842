"""Set phrases at the start of a reply, searched as whole words where a script has words."""

from collections.abc import Iterable, Mapping

_WINDOW_CHARACTERS = 240
"""What a reply is, it says at its start."""


def begins_with_phrase(text: str, phrases: Mapping[str, Iterable[str]]) -> bool:
    """True when the start of ``text`` holds a phrase of any language.

    Phrases are in lower case with straight apostrophes. A phrase may begin and end only where a word of ``text`` does.
    """
    start = " ".join(text[:_WINDOW_CHARACTERS].casefold().replace("’", "'").split())
    return any(_holds(start, phrase) for variants in phrases.values() for phrase in variants)


def _holds(text: str, phrase: str) -> bool:
    position = text.find(phrase)
    while position >= 0:
        end = position + len(phrase)
        if not (_joined(text, position) or _joined(text, end)):
            return True
        position = text.find(phrase, position + 1)
    return False


def _joined(text: str, boundary: int) -> bool:
    """True when a Latin letter stands on both sides of ``boundary``, so that a word goes on across it."""
    pair = text[max(boundary - 1, 0) : boundary + 1]
    return 0 < boundary < len(text) and all(letter.isalpha() and letter < "\u0250" for letter in pair)
