"""Configuration that this package owns: which parts a reward has and what they weigh."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent.config import Section

_PARTS = {"fidelity": 1.0, "length": 0.5, "repetition": 0.5, "substance": 0.5}
FAULT_WEIGHTS = {
    "format": 0.5,
    "brand": 0.5,
    "banned": 0.5,
    "register": 0.3,
    "numerals": 0.5,
    "leakage": 0.5,
    "prose": 0.5,
}
"""What a whole fault costs by default."""
DEFAULT_WEIGHTS = _PARTS | FAULT_WEIGHTS
"""What `rewards.weights` amends."""


class FeedbackConfig(Section):
    """Section `[rewards.feedback]`: how far one tenant or end user may move what is learnt from feedback."""

    max_pairs_per_tenant: Annotated[int, Field(ge=1)] = 2000
    """Most preference pairs of one tenant in one language."""
    max_pairs_per_end_user: Annotated[int, Field(ge=1)] = 20
    """Most preference pairs that rest on one end user alone, in one language."""
    max_share_per_tenant: Annotated[float, Field(gt=0, le=1)] = 0.25
    """Largest share of a language's pairs that come from one tenant; an equal share where there are fewer tenants."""
    free_pairs_per_tenant: Annotated[int, Field(ge=0)] = 100
    """So many pairs a tenant may give whatever its share."""
    max_pairs_per_prompt: Annotated[int, Field(ge=1)] = 8
    """Most pairs of rated replies to one prompt of one tenant; those that are rated furthest apart."""
    max_ratings_per_hour: Annotated[int, Field(ge=1)] = 60
    """More ratings of one end user in an hour are left out when nearly all are equal."""
    max_key_ratings_per_hour: Annotated[int, Field(ge=1)] = 1000
    """More ratings through one API key in an hour are left out when nearly all are equal."""


class RewardModelConfig(Section):
    """One table `[rewards.models.<name>]`: a part of the reward that models judge, in the engine process."""

    model: str | None = None
    """Hugging Face id, local folder or embedded model's name of a sequence-classification model or of a language model,
    which judges languages that a head was trained for (`coloq rewards train`). Unset: the served model."""
    further_models: tuple[str, ...] = ()
    """More judges of the same replies; the part is the judges' mean less `penalty` times their standard deviation."""
    penalty: Annotated[float, Field(ge=0)] = 0.5
    """How much disagreement between judges costs."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes of the languages that this part judges; unset judges all."""
    max_tokens: Annotated[int, Field(ge=16)] = 1024
    """Longest conversation that is judged, brief and reply together; a longer one is ungradable, never cut."""
    batch_tokens: Annotated[int, Field(ge=16)] | None = None
    """Most positions of one forward pass, padding included, which is never interrupted. Unset takes 1,024 on a CPU and
    4,096 on a GPU; a longer conversation goes alone."""
    device: Literal["engine", "cpu"] = "engine"
    """Where the models are: beside the engine, or in the engine process's main memory."""
    ranking_timeout_s: Annotated[float, Field(gt=0)] = 1.0
    """A live request whose replies are ranked waits this long for the judges; then this part is left out."""

    def names(self, served: str) -> tuple[str, ...]:
        """The judges' models as configured, each once; ``served`` where the file names none."""
        return tuple(dict.fromkeys((self.model or served, *self.further_models)))

    @field_validator("batch_tokens")
    @classmethod
    def _holds_the_longest(cls, batch_tokens: int | None, info: ValidationInfo) -> int | None:
        if batch_tokens is not None and batch_tokens < info.data.get("max_tokens", 0):
            raise PydanticCustomError("batch_tokens", "must be at least max_tokens")
        return batch_tokens


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
    max_duration_s: Annotated[float, Field(gt=0)] = 21_600.0
    """A training that takes longer fails: on a busy node it might never end, and no other one starts beside it."""
    significance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Greatest p-value at which a new reward model counts as better than the active one."""


class RewardsConfig(Section):
    """Section `[rewards]`."""

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=DEFAULT_WEIGHTS.copy)
    """Weight of each reward part. Parts that a table does not name keep the default; 0 leaves one out. The weight of a
    fault (format, brand, banned, register, numerals, leakage, prose) is what a reply loses by it. Tenants override per
    language."""
    extra: dict[str, str] = Field(default_factory=dict)
    """Reward models of your own: name to `package.module:factory`; the factory takes no argument.
    Each one needs a weight, here or in a tenant's `reward_weights`."""
    models: dict[str, RewardModelConfig] = Field(default_factory=dict)
    """Reward models by the name of their part. Each one needs a weight, here or in a tenant's `reward_weights`."""
    workers: Annotated[int, Field(ge=0, le=64)] | None = None
    """Processes that judge tuning's replies by rules, beside the one that answers requests; started by the first
    run. 0 judges in the process that answers. Unset takes one for each four cores, at most four."""
    feedback: FeedbackConfig = FeedbackConfig()
    training: RewardTrainingConfig = RewardTrainingConfig()

    @field_validator("weights")
    @classmethod
    def _amend_the_defaults(cls, weights: dict[str, float]) -> dict[str, float]:
        return {**DEFAULT_WEIGHTS, **weights}
