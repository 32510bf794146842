"""Brand terms: names stand in a reply as the tenant writes them.

A name may be inflected at its end (``Klingelos``), stand in capitals as a headline has it, and be part of an address or
a hashtag. Not intact is another casing, a look-alike letter, a hidden character, or a name taken apart.
"""

import re
from collections.abc import Sequence
from functools import cached_property

from agent.brief import Brief, Kind
from agent.script import UNSPACED
from agent.sentences import strip_noise
from rewards.lookalikes import may_be_disguised, skeleton, visible
from rewards.part import RuleInput

_REWORKED = frozenset((Kind.CORRECT, Kind.TRANSLATE, Kind.REWRITE))
_SPACED_LETTER = rf"(?![{UNSPACED}\uac00-\ud7af])\w"


class Brand:
    """Whether a reply keeps the brand terms of its tenant and brief."""

    name = "brand"

    def judge(self, given: RuleInput) -> float | None:
        """See brand_value."""
        return brand_value(given.sample.text, given.brand_terms, given.sample.brief)


def brand_value(text: str, terms: Sequence[str], brief: Brief) -> float | None:
    """The share of terms that stand in ``text`` intact and only so, of those that it names or had to name.

    A reworked text has to name the terms of its source; other texts name them as they like. None when it is about none.
    """
    names = [name for name in dict.fromkeys(map(str.strip, terms)) if name]
    if not names:
        return None
    page = _Page(text)
    source = brief.text if brief.kind in _REWORKED else ""
    told = f"{brief.instructions}\n{brief.text}"
    states = [page.is_intact(name, is_wanted=name in source, is_told=name in told) for name in names]
    about = [state for state in states if state is not None]
    return sum(about) / len(about) if about else None


class _Page:
    """A reply in the forms that names are looked up in: as written, in lower case, and as it looks."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lower = text.lower()

    @cached_property
    def _prose(self) -> str:
        """Without addresses, hashtags and the like, in which names have forms of their own."""
        return strip_noise(self._text).lower()

    @cached_property
    def _looks(self) -> str:
        seen = visible(self._text)
        is_plain = not may_be_disguised(seen) and "-" not in seen and len(seen) == len(self._text)
        return "" if is_plain else _look(visible(strip_noise(self._text)))

    def is_intact(self, name: str, *, is_wanted: bool, is_told: bool) -> bool | None:
        """None when the reply has nothing like the name and need not have it.

        Another casing is a fault of a name that the brief tells and the reply never writes well: many names are words.
        """
        is_written = _count(name, self._text) > 0 or _count(name.upper(), self._text) > 0
        num_cased = _count(name.lower(), self._prose) if name.lower() in self._lower else 0
        if _count(_look(visible(name)), self._looks) > num_cased:
            return False
        if is_written:
            return True
        return False if is_wanted or (is_told and num_cased > 0) else None


def _look(text: str) -> str:
    return skeleton(text).replace("-", "")


def _count(name: str, text: str) -> int:
    """How often a word of ``text`` begins with ``name``."""
    if not name or name not in text:
        return 0
    return len(re.findall(rf"(?<!{_SPACED_LETTER}){re.escape(name)}", text))
