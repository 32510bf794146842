"""Configuration that this package owns: how a policy is tuned, gated and published."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from agent.config import Section
from trainer.objective_settings import AdvantageScale, ImportanceCorrection, LossType, ObjectiveSettings


class AdapterConfig(Section):
    """Section `[tuning.adapter]`."""

    rank: Literal[8, 16, 32, 64, 128] = 16
    """LoRA rank."""
    alpha: Annotated[float, Field(gt=0)] = 32.0
    """LoRA scale; the update is multiplied by `alpha / rank`."""
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers that get an adapter."""


class GateMargins(Section):
    """Section `[tuning.gate.margins]`: how much worse a candidate may be, by metric; unset takes `tuning.gate.margin`.
    All are between 0 and 1."""

    reward: Annotated[float, Field(ge=0)] | None = None
    """Mean reward of the panel."""
    fidelity: Annotated[float, Field(ge=0)] | None = None
    """Share of text in the wanted language."""
    line_pass: Annotated[float, Field(ge=0)] | None = None
    """Share of replies without a line in another language (LPR)."""
    word_pass: Annotated[float, Field(ge=0)] | None = None
    """Share of those, in scripts other than Latin, without an English word (WPR)."""
    length: Annotated[float, Field(ge=0)] | None = None
    """How well replies keep to their brief's length; 1 is within it."""
    repetition: Annotated[float, Field(ge=0)] | None = None
    """Share of a reply that repeats nothing."""
    refusal: Annotated[float, Field(ge=0)] | None = None
    """Share of replies that refuse."""
    ungradable: Annotated[float, Field(ge=0)] | None = None
    """Share of replies that the panel cannot grade."""


class GateConfig(Section):
    """Section `[tuning.gate]`."""

    enabled: bool = True
    """Compare a candidate with the active policy on held-out prompts before it is published."""
    num_prompts: Annotated[int, Field(ge=1)] = 16
    """Held-out prompts of each language that any tenant has; they are chosen when a run begins and stay the same."""
    num_replies: Annotated[int, Field(ge=1)] = 48
    """Replies of each language and policy: where prompts are fewer, each is answered several times, but at most
    `max_samples` times."""
    max_samples: Annotated[int, Field(ge=1)] = 8
    """Most replies to one held-out prompt."""
    margin: Annotated[float, Field(ge=0)] = 0.05
    """A candidate may be this much worse in a language, no more; `margins` says otherwise for single metrics."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the two-sided intervals; a language passes when their lower ends stay above the margins."""
    false_block: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance that a candidate which does as well as the active policy is blocked, over all languages and metrics
    together. In a language with fewer than `min_determined` prompts it has to do as well on each prompt."""
    min_determined: Annotated[int, Field(ge=1)] = 8
    """Fewest prompts of a language, judged for both policies, for a metric to pass; with fewer it is undetermined
    unless it fails."""
    undetermined: Literal["publish", "reject"] = "publish"
    """What becomes of a candidate while a language is undetermined: `reject` publishes only what is shown to be no
    worse anywhere, which takes as many held-out prompts as the report asks for."""
    require_improvement: bool = False
    """Publish only what is shown to raise the reward in the run's languages; blocks nearly every equal policy too."""
    improvement_level: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Chance that a policy without improvement is taken for one that has it."""
    max_kl: Annotated[float, Field(gt=0)] | None = None
    """Largest estimated KL divergence from the baseline on logged replies of a language, in nats per token; by method
    `full` a step beyond it does not go live. Unset is no limit."""
    keep_texts: bool = False
    """Keep both policies' first reply to every held-out prompt in the report, where administrators can read them."""
    margins: GateMargins = GateMargins()

    def margin_of(self, metric: str) -> float:
        """The margin of a metric of `margins`."""
        own: float | None = getattr(self.margins, metric)
        return self.margin if own is None else own


class FullConfig(Section):
    """Section `[tuning.full]`, for `method = "full"`."""

    last_good: Literal["host", "gpu"] = "host"
    """Where the last published weights are kept for rollback: pinned host memory, or the GPU (faster, costs a copy)."""


class HealthConfig(Section):
    """Section `[tuning.health]`: a run whose steps cross a threshold ends as failed, and publishes nothing more."""

    patience: Annotated[int, Field(ge=1)] = 3
    """Steps in a row that must cross the same threshold."""
    min_effective_sample_size: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Lowest effective sample size of the importance weights, as a share of the tokens or replies; 0 allows all."""
    max_grad_norm_ratio: Annotated[float, Field(gt=1)] | None = 100.0
    """Largest gradient norm, as a multiple of the median of the run's earlier steps; unset is no limit."""
    min_entropy: Annotated[float, Field(gt=0)] | None = None
    """Lowest mean entropy of the sampled tokens' distributions, in nats; unset is no limit."""


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
    max_share_per_tenant: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Largest share of a step's prompts that one tenant may have, rounded down, but one prompt at the least."""
    max_share_per_end_user: Annotated[float, Field(gt=0, le=1)] = 0.5
    """The same for one end user of a tenant; requests that name no `end_user` are not capped."""
    refill_budget: Annotated[float, Field(ge=0)] = 4.0
    """Prompts whose replies all score alike teach nothing; they are replaced by at most this many times a step's
    prompts."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Sibling replies sampled per prompt (GRPO's G)."""
    max_tokens: Annotated[int, Field(ge=1)] = 128
    """Longest sibling reply, in tokens."""
    temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Sampling temperature of siblings. Replies that were logged at another one are never trained on."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """AdamW's learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are scaled down to this 2-norm."""
    loss: LossType = "grpo"
    """Policy loss, by TRL's names. `grpo` and `gspo` (one ratio per reply) average over replies, `dapo` and `bnpo` over
    tokens, `dr_grpo` over the tokens that replies may have; `cispo` bounds the ratio instead of dropping tokens."""
    objective: Literal["decoupled", "coupled"] = "decoupled"
    """Clip each update near the policy that the step began with, and correct for the engine's (`decoupled`); or clip
    near the engine's recorded policy, and correct nothing (`coupled`)."""
    updates_per_batch: Annotated[int, Field(ge=1, le=64)] = 1
    """Optimizer updates on each batch, as TRL's num_iterations; above 1 with method `adapter` only."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Lower clip range of the policy ratio (epsilon in GRPO); `cispo` has none."""
    clip_high: Annotated[float, Field(gt=0)] = 0.2
    """Upper clip range of the policy ratio, which is held below 1 + this."""
    advantage_scale: AdvantageScale = "group"
    """What group-centred rewards are divided by: nothing (`none`, Dr. GRPO), or the standard deviation of the group's,
    the batch's or the language's rewards in the batch. Centring takes a judge's offset away, not its scale."""
    importance_correction: ImportanceCorrection = "token_truncate"
    """Weigh tokens or whole replies by trainer / engine probability, cut down to `importance_cap` (`truncate`) or zero
    above it (`mask`), by TRL's names; `none` trusts the engine. No effect with objective `coupled`."""
    importance_cap: Annotated[float, Field(ge=1)] = 2.0
    """Bound of the importance weight between the engine's and the trainer's log-probabilities."""
    kl_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL divergence from the base model (beta in GRPO); above 0 with method `adapter` only, where it
    costs one more forward pass per step."""
    mask_truncated: bool = False
    """Replies that ended at their token limit add nothing to the loss; they still count in means over replies."""
    max_staleness: Annotated[int, Field(ge=0)] = 4
    """Replies sampled more than this many optimizer steps ago are dropped and counted."""
    microbatch_tokens: Annotated[int, Field(ge=32)] | None = None
    """Most positions of a forward pass, padding included; gradients accumulate over a step. Unset takes 1,024 on a CPU,
    and on a GPU 4,096; for models of more than 2.5 billion parameters the half, quarter … of that, so that one takes
    about a tenth of a second at most. A sequence is never split."""
    share_prefixes: bool = True
    """What the replies of a step begin with alike, their prompts above all, goes through the model once, not once for
    each reply. Off gives the same gradients from more work."""
    logit_chunk_tokens: Annotated[int, Field(ge=1)] = 256
    """Most tokens whose logits exist at one time."""
    yield_to_engine: bool = False
    """On a GPU, begin the trainer's large kernels between the engine's steps, not beside them."""
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
    health: HealthConfig = HealthConfig()

    @property
    def learner_objective(self) -> ObjectiveSettings:
        """What the learner optimises."""
        return ObjectiveSettings(
            loss=self.loss,
            objective=self.objective,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            importance_correction=self.importance_correction,
            importance_cap=self.importance_cap,
            kl_weight=self.kl_weight,
        )

    @field_validator("optimizer")
    @classmethod
    def _fits_the_method(cls, optimizer: str, info: ValidationInfo) -> str:
        if optimizer == "cpu" and info.data.get("method") == "adapter":
            raise PydanticCustomError(
                "optimizer_of_adapter",
                'must be "device" with tuning.method = "adapter", whose moments are small',
            )
        return optimizer

    @field_validator("updates_per_batch")
    @classmethod
    def _full_updates_go_live(cls, updates: int, info: ValidationInfo) -> int:
        if updates > 1 and info.data.get("method") == "full":
            raise PydanticCustomError(
                "updates_of_full", 'must be 1 with tuning.method = "full", whose weights change only by publication'
            )
        return updates

    @field_validator("kl_weight")
    @classmethod
    def _base_is_at_hand(cls, weight: float, info: ValidationInfo) -> float:
        if weight > 0 and info.data.get("method") == "full":
            raise PydanticCustomError(
                "kl_of_full", 'must be 0 with tuning.method = "full", which holds no copy of the base model'
            )
        return weight
