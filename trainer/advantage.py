"""Group-relative advantages.

GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2): A_i = (r_i - mean(r)) / std(r) over the G siblings of one prompt.
Dr. GRPO (arXiv 2503.20783, section 3.2) drops the division, which over-weights groups of nearly equal rewards. The
batch's deviation in its place keeps the groups' proportions ("Tricks or Traps?", arXiv 2508.08221, section 4.1).

Centring takes a judge's offset away, not its scale: where languages have judges of their own, one that spreads its
scores ten times as wide pulls ten times as hard. Scale ``language`` divides by the deviation of the language's own
rewards in the batch, so that each language pulls alike; a language whose replies hardly differ is then amplified.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from trainer.objective_settings import AdvantageScale

_STD_FLOOR = 1e-4
"""Added to the deviation, as TRL's GRPOTrainer does."""


def advantages(groups: Sequence[Sequence[float]], languages: Sequence[str], scale: AdvantageScale) -> list[list[float]]:
    """Advantages of every sibling of a batch's groups, from their rewards; those of a group sum to zero.

    Args:
        groups: rewards of the siblings that are trained on, by group.
        languages: of each group.

    Raises:
        ValueError: for a group of fewer than two siblings, whose advantage is undefined.
    """
    for rewards in groups:
        if len(rewards) < 2:
            raise ValueError(f"a group needs at least 2 siblings, got {len(rewards)}")
    divisors = _divisors(groups, languages, scale)
    return [[value / divisor for value in _centred(rewards)] for rewards, divisor in zip(groups, divisors, strict=True)]


def has_spread(rewards: Sequence[float]) -> bool:
    """False when every sibling scored the same: such a group teaches nothing."""
    return max(rewards) - min(rewards) > 1e-6


def _centred(rewards: Sequence[float]) -> list[float]:
    mean = sum(rewards) / len(rewards)
    return [reward - mean for reward in rewards]


def _divisors(groups: Sequence[Sequence[float]], languages: Sequence[str], scale: AdvantageScale) -> list[float]:
    """One for each group: the deviation of all rewards that are pooled with it."""
    if scale == "none":
        return [1.0] * len(groups)
    pools = _pools(len(groups), languages, scale)
    pooled: defaultdict[object, list[float]] = defaultdict(list)
    for pool, rewards in zip(pools, groups, strict=True):
        pooled[pool] += rewards
    deviations = {pool: float(np.std(rewards, ddof=1)) + _STD_FLOOR for pool, rewards in pooled.items()}
    return [deviations[pool] for pool in pools]


def _pools(num_groups: int, languages: Sequence[str], scale: AdvantageScale) -> Sequence[object]:
    """What each group is pooled by: equal values share a deviation."""
    if scale == "language":
        return languages
    return range(num_groups) if scale == "group" else [0] * num_groups
