"""Group-relative advantages.

GRPO (DeepSeekMath, arXiv 2402.03300, section 4.1.2): A_i = (r_i - mean(r)) / std(r) over the G siblings of one prompt.
Dr. GRPO (arXiv 2503.20783, section 3.2) drops the division, which over-weights groups of nearly equal rewards.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

AdvantageScale = Literal["none", "group"]
_STD_FLOOR = 1e-4
"""Added to the deviation, as TRL's GRPOTrainer does."""


def group_advantages(rewards: Sequence[float], scale: AdvantageScale) -> list[float]:
    """Advantages of the siblings of one group; they sum to zero.

    Raises:
        ValueError: for fewer than two siblings, whose advantage is undefined.
    """
    if len(rewards) < 2:
        raise ValueError(f"a group needs at least 2 siblings, got {len(rewards)}")
    values = np.asarray(rewards, dtype=np.float64)
    centred = values - values.mean()
    if scale == "group":
        centred = centred / (values.std(ddof=1) + _STD_FLOOR)
    return [float(value) for value in centred]


def has_spread(rewards: Sequence[float]) -> bool:
    """False when every sibling scored the same: such a group teaches nothing."""
    return max(rewards) - min(rewards) > 1e-6
