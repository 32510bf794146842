"""Texts of an exact number of tokens: both sides of a comparison get prompts of one length."""

import random
from collections.abc import Callable, Sequence

Encode = Callable[[str], Sequence[int]]
"""Token ids of a text."""

_WORDS = tuple(
    "the a an of and or in on at to for with from by about over under near sea ship wind light morning evening city "
    "market street garden river mountain forest bread coffee table window paper music story teacher friend family "
    "write read make take bring open close begin small large quiet bright warm cold new old good early late first "
    "last one two three four five six seven eight nine ten year week day hour people place water hand eye".split()
)
_FILLERS = (".", ",", "!", ";", ":", " a", " I", "s", "\n", "?")


def texts_of_length(encode: Encode, num_texts: int, num_tokens: int, *, seed: int) -> list[str]:
    """Different texts that ``encode`` turns into exactly ``num_tokens`` ids each.

    Raises:
        ValueError: words do not add up to that length: it is below what ``encode`` makes of one word.
    """
    return [_text_of_length(encode, num_tokens, random.Random(f"{seed}-{number}")) for number in range(num_texts)]


def _text_of_length(encode: Encode, num_tokens: int, chance: random.Random) -> str:
    text = chance.choice(_WORDS).capitalize()
    while (size := len(encode(text))) < num_tokens:
        text = _grown(encode, text, size, num_tokens, chance)
    if size > num_tokens:
        raise ValueError(f"a prompt must be able to have {num_tokens} tokens, got {size} with one word")
    return text


def _grown(encode: Encode, text: str, size: int, num_tokens: int, chance: random.Random) -> str:
    """The text with one piece more that keeps it within the length: a word, or a filler where no word fits."""
    words = [f" {word}" for word in chance.sample(_WORDS, len(_WORDS))]
    for piece in (*words, *_FILLERS):
        if size < len(encode(text + piece)) <= num_tokens:
            return text + piece
    raise ValueError(f"no word makes a prompt of {size} tokens one of {num_tokens}")
