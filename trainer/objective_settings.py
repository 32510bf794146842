"""What is optimised, as plain values: configuration, learner and messages share them."""

from dataclasses import dataclass
from typing import Literal

LossType = Literal["grpo", "dr_grpo", "bnpo", "dapo", "cispo", "gspo"]
"""Policy losses (trainer.loss)."""
ImportanceCorrection = Literal["none", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]
"""How samples of the engine are weighted (trainer.loss)."""
AdvantageScale = Literal["none", "group", "batch", "language"]
"""What group-centred rewards are divided by (trainer.advantage)."""


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """What is optimised (trainer.loss): constants that a captured graph holds."""

    loss: LossType
    objective: Literal["decoupled", "coupled"]
    clip_low: float
    clip_high: float
    importance_correction: ImportanceCorrection
    importance_cap: float
    kl_weight: float
    """0 leaves the KL term out, and with it the base model's forward pass."""

    @property
    def weighs_sequences(self) -> bool:
        """True when an importance weight is a whole sequence's."""
        return self.objective == "decoupled" and self.importance_correction.startswith("sequence")
