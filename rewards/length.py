"""Length against the brief's bounds, in words as rewards.words counts them."""

from agent.brief import Brief
from rewards.part import RuleInput
from rewards.words import count_words


class Length:
    """Whether a reply keeps to the brief's bounds; absent when the brief states none."""

    name = "length"

    def judge(self, given: RuleInput) -> float | None:
        """See length_value."""
        brief = given.sample.brief
        if brief.min_words is None and brief.max_words is None:
            return None
        return length_value(count_words(given.sample.text), brief)


def length_value(num_words: int, brief: Brief) -> float:
    """1 inside the bounds; below, the share that is there; above, a straight line down to 0 at twice the limit."""
    if brief.min_words is not None and num_words < brief.min_words:
        return num_words / brief.min_words
    if brief.max_words is not None and num_words > brief.max_words:
        return max(0.0, 1 - (num_words - brief.max_words) / brief.max_words) if brief.max_words else 0.0
    return 1.0
