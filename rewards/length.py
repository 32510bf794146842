"""Length against the brief's bounds, in words as rewards.words counts them.

The bounds are those of one text. A reply that is a list of alternatives holds several, each of which keeps to them or
does not; of a structured reply its strings are the text, and keys and numbers are none of it.
"""

from collections.abc import Sequence
from statistics import fmean

from agent.brief import Brief
from agent.structure import prose_of
from agent.suggestions import distinct, split_alternatives
from rewards.part import RuleInput
from rewards.words import count_words


class Length:
    """Whether a reply keeps to the brief's bounds; absent when the brief states none."""

    name = "length"

    def judge(self, given: RuleInput) -> float | None:
        """See reply_length."""
        return reply_length(given.sample.text, given.sample.brief)


def reply_length(text: str, brief: Brief) -> float | None:
    """The mean of length_value over the reply's texts; None when the brief states no bounds."""
    if brief.min_words is None and brief.max_words is None:
        return None
    return fmean(length_value(count_words(part), brief) for part in _texts(text, brief))


def length_value(num_words: int, brief: Brief) -> float:
    """1 inside the bounds; below, the share that is there; above, a straight line down to 0 at twice the limit."""
    if brief.min_words is not None and num_words < brief.min_words:
        return num_words / brief.min_words
    if brief.max_words is not None and num_words > brief.max_words:
        return max(0.0, 1 - (num_words - brief.max_words) / brief.max_words) if brief.max_words else 0.0
    return 1.0


def _texts(text: str, brief: Brief) -> Sequence[str]:
    """What the caller gets of a reply, at least one text."""
    if brief.schema is not None:
        return (prose_of(text),)
    if brief.num_alternatives is None:
        return (text,)
    return distinct(split_alternatives(text), brief.num_alternatives) or (text,)
