"""Scored pairs, written down by hand."""

import math

from agent.brief import Kind
from rewards.preference import PairSource
from rewards.training.scored import ScoredPair, ScoredReply


def pair(
    margin: float,
    *,
    prompt: str = "p",
    raw_margin: float | None = None,
    source: PairSource = PairSource.EDIT,
    words: tuple[int, int] = (9, 9),
) -> ScoredPair:
    """A pair whose replies score `margin` and 0, with so many words each."""
    chosen = ScoredReply(margin if raw_margin is None else raw_margin, margin, math.log1p(words[0]))
    return ScoredPair(prompt, Kind.CREATE, source, chosen, ScoredReply(0.0, 0.0, math.log1p(words[1])))
