"""Preference pairs with the scores that a reward model gave both replies."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from agent.brief import Kind
from rewards.preference import PairSource


@dataclass(frozen=True, slots=True)
class ScoredReply:
    """One reply's scores; greater is better."""

    raw: float
    """The head's output."""
    score: float
    """Without what length alone explains, in the units of ``raw``: what the model judges by."""
    log_words: float
    """log(1 + words)."""


@dataclass(frozen=True, slots=True)
class ScoredPair:
    """One preference pair as a reward model sees it."""

    prompt: str
    """Pairs of one prompt share it."""
    kind: Kind
    source: PairSource
    chosen: ScoredReply
    rejected: ScoredReply

    @property
    def margin(self) -> float:
        """How much better the chosen reply scored."""
        return self.chosen.score - self.rejected.score

    @property
    def is_right(self) -> bool:
        """Whether the chosen reply scored better; equal scores are no."""
        return self.margin > 0


def by_prompt(pairs: Sequence[ScoredPair]) -> dict[str, list[ScoredPair]]:
    """Pairs by their prompt, in the order of prompts."""
    ordered = sorted(pairs, key=lambda pair: pair.prompt)
    return {prompt: list(group) for prompt, group in groupby(ordered, key=lambda pair: pair.prompt)}


def share_right(pairs: Sequence[ScoredPair]) -> float:
    """The share of pairs that are right; of none, nan."""
    return sum(pair.is_right for pair in pairs) / len(pairs) if pairs else math.nan
