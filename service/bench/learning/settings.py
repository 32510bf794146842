"""What `coloq bench learn` is asked to do, the node that it does it on, and how long that is expected to take."""

import json
from dataclasses import dataclass
from pathlib import Path

from service.bench.learning.budget import Phase
from service.bench.learning.exam import reward_config
from service.bench.learning.runs import TRAFFIC_LANGUAGE, RunSettings, Variant
from service.bench.node import NodeSettings
from trainer.objective_settings import ImportanceCorrection

_GPU_KV_GIB, _CPU_KV_GIB = 8.0, 0.5
"""Small: the fluency judge's copy of the model, and TRL afterwards, want room as well."""
_GPU_TOKENS_PER_S, _CPU_TOKENS_PER_S = 4096.0, 5.0
"""Sampled and trained on, until a run has shown what it is here."""
_EXAM_TOKENS_PER_S = 3.0
"""Exams sample and grade and do not train: so many times faster."""
_TRL_START_S = 60.0
_FEWEST_ADAPTERS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnOptions:
    """Options of the command line."""

    out: Path
    model: Path
    languages: tuple[str, ...]
    num_train: int
    num_held_out: int
    exam_replies: int
    seeds: tuple[int, ...]
    num_steps: int
    prompts_per_step: int
    group_size: int
    max_tokens: int
    learning_rate: float
    rank: int
    rate: float
    fluency: bool
    staleness: tuple[int, ...]
    """Steps that rollouts are behind; none leaves the experiment out."""
    corrections: tuple[ImportanceCorrection, ...]
    staleness_steps: int
    against_trl: bool
    trl_seeds: tuple[int, ...]
    trl_microbatch: int
    vllm_memory: float
    vllm_arguments: str
    prompt_seed: int
    budget_s: float | None
    overrides: tuple[str, ...]

    @property
    def runs(self) -> RunSettings:
        return RunSettings(
            languages=self.languages,
            prompts_per_step=self.prompts_per_step,
            group_size=self.group_size,
            max_tokens=self.max_tokens,
            learning_rate=self.learning_rate,
            exam_replies=self.exam_replies,
            rate=self.rate,
        )

    @property
    def variants(self) -> list[Variant]:
        """Runs on the node, those of the product first."""
        own = [Variant(seed, self.num_steps) for seed in self.seeds]
        stale = [
            Variant(self.seeds[0], self.staleness_steps, lag, correction)
            for correction in self.corrections
            for lag in self.staleness
        ]
        return own + stale

    @property
    def tokens_per_step(self) -> int:
        return self.prompts_per_step * self.group_size * self.max_tokens

    @property
    def exam_tokens(self) -> int:
        return self.num_held_out * self.exam_replies * self.max_tokens


@dataclass(slots=True)
class Pace:
    """Tokens of steps per second: an assumption first, then what the last run showed."""

    tokens_per_s: float

    @classmethod
    def assumed(cls, *, on_cpu: bool) -> "Pace":
        return cls(_CPU_TOKENS_PER_S if on_cpu else _GPU_TOKENS_PER_S)

    def exam_s(self, options: LearnOptions) -> float:
        """Of one exam."""
        return options.exam_tokens / (self.tokens_per_s * _EXAM_TOKENS_PER_S)

    def run_s(self, options: LearnOptions, num_steps: int) -> float:
        """Of a run with both exams."""
        return num_steps * options.tokens_per_step / self.tokens_per_s + 2 * self.exam_s(options)

    def trl_s(self, options: LearnOptions) -> float:
        """Of TRL's runs, each with a start of its own; a step is taken to be as long as the node's."""
        if not options.against_trl:
            return 0.0
        return len(options.trl_seeds) * (_TRL_START_S + self.run_s(options, options.num_steps))


def plan_of(options: LearnOptions, pace: Pace) -> list[Phase]:
    """What will be done once the node is up."""
    phases = [Phase(f"run, {variant.label}", pace.run_s(options, variant.num_steps)) for variant in options.variants]
    if options.against_trl:
        phases.append(Phase(f"TRL, {len(options.trl_seeds)} seeds", pace.trl_s(options)))
    return phases


def node_settings(options: LearnOptions, longest_prompt: int, *, on_cpu: bool) -> NodeSettings:
    """The node: every prompt trains, nothing is gated or checkpointed, old versions keep slots as long as asked."""
    rewards = reward_config(fluency=options.fluency)
    values: dict[str, object] = {
        "log_level": "warning",
        "store.held_out_share": 0.0,
        "engine.kv_cache_gib": _CPU_KV_GIB if on_cpu else _GPU_KV_GIB,
        "tuning.method": "adapter",
        "tuning.prompts_per_step": options.prompts_per_step,
        "tuning.group_size": options.group_size,
        "tuning.max_tokens": options.max_tokens,
        "tuning.learning_rate": options.learning_rate,
        "tuning.adapter.rank": options.rank,
        "tuning.checkpoint_every": 0,
        "tuning.keep_adapters": max(_FEWEST_ADAPTERS, 2 + max(options.staleness, default=0)),
        **{f"rewards.weights.{name}": weight for name, weight in rewards.weights.items()},
        **{f"rewards.extra.{name}": target for name, target in rewards.extra.items()},
    }
    return NodeSettings(
        model=options.model,
        prompt_tokens=longest_prompt,
        max_tokens=options.max_tokens,
        on_cpu=on_cpu,
        overrides=(*(f"{key}={json.dumps(value)}" for key, value in values.items()), *options.overrides),
        languages=(*options.languages, TRAFFIC_LANGUAGE),
    )
