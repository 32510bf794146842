"""What the outside sees of tuning: a run's request, its reports and status, and the policies it made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from trainer.gate_records import GateReport


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What an operator may choose per run; None takes the node's configuration."""

    languages: tuple[str, ...] = ()
    """Languages to draw prompts from; empty draws from all that tenants have."""
    steps: int | None = None
    group_size: int | None = None
    prompts_per_step: int | None = None
    max_tokens: int | None = None
    learning_rate: float | None = None
    publish_every: int | None = None
    gate: bool | None = None
    seed: int = 0
    tenant: str | None = None
    """Tune for this tenant alone, on its prompts; None tunes what all tenants share."""


class RunState(StrEnum):
    """Where a run is. All but the first two are final, and of these ``INTERRUPTED`` alone can be resumed."""

    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    STOPPED = "stopped"
    """Ended by an operator; what had been published stays."""
    REJECTED = "rejected"
    """The gate refused the candidate; nothing was published for it."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """The node or its engine stopped during the run."""

    @property
    def final(self) -> bool:
        return self not in (RunState.RUNNING, RunState.STOPPING)


@dataclass(frozen=True, slots=True)
class StepReport:
    """One optimizer step, measured at its edges."""

    step: int
    """1-based."""
    version: int
    """Policy version that the step made."""
    num_sequences: int
    num_tokens: int
    reward_mean: float
    reward_std: float
    reward_by_language: Mapping[str, float]
    parts: Mapping[str, float]
    """Mean of each reward part over the graded replies."""
    dropped: Mapping[str, int]
    """Replies or groups that were not trained on, by reason."""
    loss: float
    grad_norm: float
    clip_fraction: float
    effective_sample_size: float
    """(sum w)^2 / (n sum w^2) of the importance weights before they are bounded, in (0, 1]."""
    mismatch_mean: float
    """Mean |engine logprob - trainer logprob| over the trained tokens."""
    rollout_s: float
    """This and ``score_s`` may have passed while the version before was published or a checkpoint written."""
    score_s: float
    train_s: float
    install_s: float
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Logged prompts that were not claimed, by reason. This and what follows has defaults for runs that were recorded
    without."""
    num_logged_groups: int = 0
    """Groups that were logged as such (requests with several samples) and scored."""
    num_sampled_groups: int = 0
    """Groups that were sampled for the step and scored."""
    staleness_mean: float = 0.0
    """Optimizer steps between the policy that a token was sampled by and the one that the step began with, averaged
    over the trained tokens. A completion that spans versions counts by its first."""
    staleness_max: int = 0
    mismatch_max: float | None = None
    """The largest |engine logprob - trainer logprob| of a token."""
    entropy: float | None = None
    """Mean entropy of the whole distributions that the trained tokens were taken from, in nats."""
    behaviour_kl: float | None = None
    """Estimate of KL(engine's policy at sampling || trained policy) per token, in nats."""
    base_kl: float | None = None
    """Estimate of KL(trained policy || base model) per token, in nats; None without a KL term."""
    parts_by_language: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Mean of each reward part over the graded replies of each language."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Held-out comparison of a candidate with the active policy."""

    version: int
    baseline_version: int
    reward: float
    baseline_reward: float
    by_language: Mapping[str, tuple[float, float]]
    """Language to (candidate, baseline) mean reward."""
    fidelity: Mapping[str, tuple[float, float]]
    """Language to (candidate, baseline) share of text in the language, by the gate's own detector."""
    rejected: Mapping[str, str]
    """Language to the reason it fails; empty when the candidate passes."""
    report: GateReport | None = None
    """How it was decided; None for evaluations that were recorded without."""


@dataclass(frozen=True, slots=True)
class ParityReport:
    """Engine against trainer on the probe's tokens, in nats."""

    num_tokens: int
    mean: float
    max: float

    def within(self, bound: float) -> bool:
        """Whether the mean is at most ``bound``. NaN is not."""
        return self.mean <= bound


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A tuning run as `GET /admin/tuning/runs/{id}` shows it."""

    id: str
    state: RunState
    request: RunRequest
    started_at: datetime
    ended_at: datetime | None
    num_steps: int
    """Steps that the run will take."""
    steps: tuple[StepReport, ...]
    published: tuple[int, ...]
    """Policy versions that the run published."""
    evaluation: Evaluation | None
    reason: str | None
    """Why the run failed, was rejected, stopped or interrupted."""
    resumed_after: tuple[int, ...] = ()
    """For each time that the run was resumed, the number of steps that it had taken."""


@dataclass(frozen=True, slots=True)
class PolicyRecord:
    """One row of the ledger. Version 0 is the base model."""

    version: int
    method: str
    """`base`, `adapter` or `full`."""
    parent: int | None
    run_id: str | None
    created_at: datetime
    sha256: str | None
    """Digest of the manifest, which holds the digest of every file."""
    parity: ParityReport | None
    evaluation: Evaluation | None
    tenant: str | None = None
    """Whose it is alone; None is for all."""
