"""What one run will do: the operator's request over the node's configuration."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.completion import Sampling
from trainer.config import TuningConfig
from trainer.ports import LearnerSettings
from trainer.records import RunRequest

_SEED_STRIDE = 1_000_003
"""Keeps the seeds of different runs and steps apart."""


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run's parameters, all decided."""

    languages: tuple[str, ...]
    num_steps: int
    prompts_per_step: int
    group_size: int
    max_tokens: int
    publish_every: int | None
    gate: bool
    seed: int
    config: TuningConfig
    learner: LearnerSettings
    gate_languages: tuple[str, ...] = ()
    """Those in which no candidate may be worse: the run's, and all that tenants have."""
    tenant: str | None = None
    """Draw from this tenant's prompts alone."""

    @classmethod
    def of(
        cls,
        request: RunRequest,
        config: TuningConfig,
        languages: tuple[str, ...],
        enabled_languages: Sequence[str] | None = None,
    ) -> "RunPlan":
        """``languages`` is what to draw from when the request names none, ``enabled_languages`` what tenants have where
        that is something else."""
        enabled = languages if enabled_languages is None else enabled_languages
        return cls(
            languages=request.languages or languages,
            num_steps=request.steps or config.steps,
            prompts_per_step=request.prompts_per_step or config.prompts_per_step,
            group_size=request.group_size or config.group_size,
            max_tokens=request.max_tokens or config.max_tokens,
            publish_every=request.publish_every or config.publish_every,
            gate=config.gate.enabled if request.gate is None else request.gate,
            seed=request.seed,
            config=config,
            learner=LearnerSettings(
                rank=config.adapter.rank,
                alpha=config.adapter.alpha,
                target_modules=config.adapter.target_modules,
                learning_rate=request.learning_rate or config.learning_rate,
                weight_decay=config.weight_decay,
                max_grad_norm=config.max_grad_norm,
                objective=config.learner_objective,
                updates_per_batch=config.updates_per_batch,
                reply_tokens=request.max_tokens or config.max_tokens,
                microbatch_tokens=config.microbatch_tokens,
                logit_chunk_tokens=config.logit_chunk_tokens,
                seed=request.seed,
                method=config.method,
                optimizer=config.optimizer,
                last_good=config.full.last_good,
                yield_to_engine=config.yield_to_engine,
                siblings=(request.group_size or config.group_size) if config.share_prefixes else 1,
            ),
            gate_languages=tuple(sorted({*request.languages, *languages, *enabled})),
            tenant=request.tenant,
        )

    @property
    def num_refills(self) -> int:
        """Most groups that one step may draw in the place of others."""
        return int(self.prompts_per_step * self.config.refill_budget)

    def sampling(self, step: int) -> Sampling:
        """Sampling of one step's siblings, with the first seed of a range that no other step uses."""
        num_seeds = (self.prompts_per_step + self.num_refills) * self.group_size
        seed = (self.seed * _SEED_STRIDE + step * max(num_seeds, 4096)) % 2**31
        return Sampling(max_tokens=self.max_tokens, temperature=self.config.temperature, seed=seed)

    def checkpoints_after(self, step: int) -> bool:
        """True every ``tuning.checkpoint_every`` steps, and where a publication follows."""
        default = 10 if self.config.method == "full" else 1
        every = default if self.config.checkpoint_every is None else self.config.checkpoint_every
        return every > 0 and (step % every == 0 or self.publishes_after(step))

    def publishes_after(self, step: int) -> bool:
        """True after the last step, and every ``publish_every`` steps.

        By method ``full`` every step goes live; after these the result is also judged, written and recorded.
        """
        return step == self.num_steps or (self.publish_every is not None and step % self.publish_every == 0)
