"""Configuration that this package owns: how a policy is tuned, gated and published."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent.config import Section


class AdapterConfig(Section):
    """Section `[tuning.adapter]`."""

    rank: Literal[8, 16, 32, 64, 128] = 16
    """LoRA rank."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """LoRA scale; the update is multiplied by `alpha / rank`."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Linear layers that get an adapter."""


class GateConfig(Section):
    """Section `[tuning.gate]`."""

    enabled: bool = True
    """Compare a candidate with the active policy on held-out prompts before it is published."""
    num_prompts: Annotated[int, Field(ge=1)] = 16
    """Held-out prompts per evaluation."""
    margin: Annotated[float, Field(ge=0)] = 0.05
    """A candidate may score this much lower in a language, no more."""
    min_determined: Annotated[int, Field(ge=1)] = 3
    """Fewest replies of a language that the gate's detector must be able to tell, for their share to count."""


class FullConfig(Section):
    """Section `[tuning.full]`, for `method = "full"`."""

    last_good: Literal["host", "gpu"] = "host"
    """Where the last published weights are kept for rollback: pinned host memory, or the GPU (faster, costs a copy)."""


class TuningConfig(Section):
    """Section `[tuning]`."""

    method: Literal["adapter", "full"] = "adapter"
    """Train a LoRA adapter beside the frozen weights, or the weights themselves (every step then goes live)."""
    optimizer: Literal["device", "cpu"] = "device"
    """Where masters and moments live: beside the model, or in host memory with DeepSpeed's CPU Adam (`full` only)."""
    steps: Annotated[int, Field(ge=1)] = 20
    """Optimizer steps of a run."""
    prompts_per_step: Annotated[int, Field(ge=1)] = 4
    """Prompts claimed from the journal for one step."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Sibling replies sampled per prompt (GRPO's G)."""
    max_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest sibling reply, in tokens."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature of siblings."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """AdamW's learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this 2-norm."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Lower clip range of the importance ratio (epsilon in GRPO)."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """Upper clip range of the importance ratio."""
    advantage_scale: Literal["none", "group"] = "group"
    """Divide group-centred rewards by the group's standard deviation (`group`) or not (`none`, Dr. GRPO)."""
    importance_cap: Annotated[float, Field(ge=1)] = 2.0
    """Cap of the token-level importance weight between the engine's and the trainer's log-probabilities."""
    max_staleness: Annotated[int, Field(ge=0)] = 4
    """Replies sampled more than this many versions ago are dropped and counted."""
    microbatch_tokens: Annotated[int, Field(ge=32)] | None = None
    """Most positions of a forward pass, padding included; gradients accumulate over a step. Unset takes 1,024 on a CPU
    and 4,096 on a GPU. A sequence is never split."""
    logit_chunk_tokens: Annotated[int, Field(ge=1)] = 256
    """Most tokens whose logits exist at one time."""
    publish_every: Annotated[int, Field(ge=1)] | None = None
    """Publish after every so many steps; unset publishes once, at the end of a run."""
    checkpoint_every: Annotated[int, Field(ge=0)] | None = None
    """Write a checkpoint after every so many steps and before each publication; 0 writes none. Unset takes 1 by method
    `adapter` and 10 by `full`. One holds 12 bytes for each trained parameter, and the last two of a run are kept."""
    resume: Literal["ask", "auto"] = "ask"
    """What becomes of a run that the end of the node or its engine interrupted: it waits for `coloq tune resume`, or
    goes on at the next start."""
    parity_mean: Annotated[float, Field(gt=0)] = 0.1
    """Publication needs a mean |engine logprob - trainer logprob| of at most this, over the parity probe's tokens."""
    keep_adapters: Annotated[int, Field(ge=1)] = 4
    """Published adapters kept installed in the engine beside the active one."""
    adapter: AdapterConfig = AdapterConfig()
    full: FullConfig = FullConfig()
    gate: GateConfig = GateConfig()

    @field_validator("optimizer")
    @classmethod
    def _fits_the_method(cls, optimizer: str, info: ValidationInfo) -> str:
        if optimizer == "cpu" and info.data.get("method") == "adapter":
            raise PydanticCustomError(
                "optimizer_of_adapter",
                'must be "device" with tuning.method = "adapter", whose moments are small',
            )
        return optimizer
