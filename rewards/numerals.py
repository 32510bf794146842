"""Numerals: numbers, dates, prices and units that a text gives are still there after it was worked on.

Bounds that are known: number words are not read (so bare integers up to twelve do not count), months are not told from
each other when one text names them, and units are not converted (miles that became kilometres count as changed).
"""

from collections.abc import Sequence

from agent.brief import Brief, Kind
from rewards.numbers import Number, read_numbers
from rewards.part import RuleInput
from rewards.words import count_words

_REWORKED = frozenset((Kind.CORRECT, Kind.TRANSLATE, Kind.REWRITE))
_WRITTEN = frozenset((Kind.CREATE, Kind.SUGGEST))


class Numerals:
    """Whether a reply keeps the numbers of its brief."""

    name = "numerals"

    def judge(self, given: RuleInput) -> float | None:
        """See numerals_value."""
        return numerals_value(given.sample.text, given.sample.brief)


def numerals_value(text: str, brief: Brief) -> float | None:
    """The share of numbers that agree, of those that either the brief or the reply has; None where there are none.

    A reworked text keeps each number and adds none but those of its instructions; a rewrite that was told to be shorter
    than its text may leave numbers out. A new text may use numbers as it likes, but where its brief gives amounts
    (money, percentages) it may state no other ones.
    """
    if brief.kind in _REWORKED:
        return _kept(read_numbers(brief.text), read_numbers(text), brief)
    if brief.kind in _WRITTEN:
        return _amounts(text, brief)
    return None


def _kept(source: Sequence[Number], reply: Sequence[Number], brief: Brief) -> float | None:
    """The worse share of two: of all numbers, and of amounts alone, since one wrong price outweighs ten right dates."""
    wanted = [number for number in source if not number.is_small]
    if not wanted:
        return None
    allowed = [*source, *read_numbers(brief.instructions)]
    bound = brief.max_words
    may_shorten = brief.kind is Kind.REWRITE and bound is not None and bound < count_words(brief.text)
    lost = [] if may_shorten else [number for number in wanted if not _is_in(number, reply)]
    kept = [number for number in wanted if _is_in(number, reply)]
    invented = [number for number in reply if not number.is_small and not _is_in(number, allowed)]
    return min(_share(kept, [*lost, *invented]), _share(_amounts_of(kept), _amounts_of([*lost, *invented])))


def _share(kept: Sequence[Number], changed: Sequence[Number]) -> float:
    total = len(kept) + len(changed)
    return len(kept) / total if total else 1.0


def _amounts_of(numbers: Sequence[Number]) -> list[Number]:
    return [number for number in numbers if number.is_amount]


def _amounts(text: str, brief: Brief) -> float | None:
    given = read_numbers(f"{brief.instructions}\n{brief.text}")
    stated = _amounts_of(read_numbers(text))
    if not stated or not _amounts_of(given):
        return None
    return sum(_is_in(number, given) for number in stated) / len(stated)


def _is_in(number: Number, numbers: Sequence[Number]) -> bool:
    return any(number.agrees(other) for other in numbers)
