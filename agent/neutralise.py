"""Chat markup in user text made harmless: a special token inside a brief must not become one in the prompt."""

import re
from collections.abc import Sequence

_NUM_SPACING_PASSES = 8


def neutralise(text: str, special_tokens: Sequence[str]) -> str:
    """``text`` without any of ``special_tokens``: ``<|im_end|>`` becomes ``< |im_end|>``. Other text is unchanged.

    Passes repeat until no token remains, so that one built out of another's remains does not survive. A token that a
    space cannot break, and whatever is left after a few passes, is deleted, which ends for certain.
    """
    tokens = sorted({token for token in special_tokens if token}, key=len, reverse=True)
    if not tokens:
        return text
    pattern = re.compile("|".join(map(re.escape, tokens)))
    spaced = {token: _spaced(token, pattern) for token in tokens}
    for _ in range(_NUM_SPACING_PASSES):
        if pattern.search(text) is None:
            return text
        text = pattern.sub(lambda match: spaced[match.group()], text)
    while pattern.search(text):
        text = pattern.sub("", text)
    return text


def _spaced(token: str, pattern: re.Pattern[str]) -> str:
    candidate = f"{token[0]} {token[1:]}"
    return "" if pattern.search(candidate) else candidate
