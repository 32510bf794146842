"""Configuration that this package owns: which parts a reward has and what they weigh."""

from typing import Annotated

from pydantic import Field

from agent.config import Section


class RewardTrainingConfig(Section):
    """Section `[rewards.training]`: how reward models learn from people's feedback."""

    backbone: str | None = None
    """Model of a part of `rewards.models` that reward models are trained on; unset takes the served model where a part
    judges by it, or else the first part's."""
    min_pairs: Annotated[int, Field(ge=1)] = 100
    """Preference pairs of a language to train on, below which no reward model is trained."""
    min_held_out: Annotated[int, Field(ge=5)] = 30
    """Held-out pairs of a language to measure on, below which no reward model is trained."""
    epochs: Annotated[int, Field(ge=1, le=100)] = 2
    """Times that every pair is trained on."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    """AdamW's learning rate at the start; it falls to 0 along a line."""
    rank: Annotated[int, Field(ge=1, le=256)] = 16
    """Rank of the LoRA adapter."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = 8
    """Pairs of an optimizer step."""
    max_tokens: Annotated[int, Field(ge=16)] = 1024
    """Pairs with a reply that is longer than this, prompt included, are left out."""
    num_threads: Annotated[int, Field(ge=1)] = 2
    """CPU threads of a training, which runs at the lowest priority."""
    significance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Greatest p-value at which a new reward model counts as better than the active one."""


class RewardsConfig(Section):
    """Section `[rewards]`."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"fidelity": 1.0, "length": 0.5, "repetition": 0.5, "substance": 0.5}
    )
    """Weight of each reward part; a part that is absent weighs nothing. Tenants override per language."""
    extra: dict[str, str] = Field(default_factory=dict)
    """Reward models of your own: name to `package.module:factory`; the factory takes no argument.
    Each one needs a weight, here or in a tenant's `reward_weights`."""
    training: RewardTrainingConfig = RewardTrainingConfig()
