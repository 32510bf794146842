"""What the gate found, as it is kept with a policy and shown: by language and metric, in numbers and in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class GateVerdict(StrEnum):
    """What a comparison shows."""

    PASSED = "passed"
    """Not worse than the baseline by more than the margin, with the configured confidence."""
    FAILED = "failed"
    """Worse by more than the margin, and not by chance."""
    UNDETERMINED = "undetermined"
    """Neither is shown: too few held-out prompts for how much replies vary."""


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric of one language, candidate beside baseline."""

    language: str
    metric: str
    candidate: float
    """Mean over prompts of the mean of their replies; likewise the baseline's."""
    baseline: float
    difference: float
    """Candidate less baseline, over the prompts that both have."""
    low: float
    """The difference's interval, at ``tuning.gate.confidence``."""
    high: float
    num_prompts: int
    num_replies: int
    """Pairs of replies to the same prompt with the same seed."""
    margin: float | None = None
    """How much worse it may be; None for what is only reported."""
    verdict: GateVerdict | None = None
    """None for what is only reported."""
    chance: float | None = None
    """How often an equal policy would look as bad in any language and metric; None for what is only reported."""
    prompts_needed: int | None = None
    """For a verdict, where there is none."""


@dataclass(frozen=True, slots=True)
class Improvement:
    """Whether the reward rose in the languages that the run drew prompts from."""

    languages: tuple[str, ...]
    difference: float
    """Mean over these languages."""
    low: float
    """Lower bound of the difference at the test's level, one-sided."""
    level: float
    shown: bool
    """The lower bound is above 0."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the candidate moved on logged replies of one language, token by token, before it answered anything."""

    logprob: float
    """Mean log-probability that the candidate gives a token of held-out replies that were served, in nats."""
    baseline_logprob: float
    kl: float
    """Estimate of KL(baseline || candidate) per token on these replies (k3, Schulman 2020), in nats."""
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ReplyPair:
    """Both policies' first replies to one held-out prompt, where ``tuning.gate.keep_texts`` keeps them."""

    language: str
    prompt: str
    """Digest of the prompt."""
    candidate: str
    baseline: str


@dataclass(frozen=True, slots=True)
class GateReport:
    """Everything of an evaluation that decides, or explains the decision."""

    verdict: GateVerdict
    """FAILED when a language failed, UNDETERMINED when one is, else PASSED."""
    exam: str
    """Digest of the held-out prompts, which are frozen for the run."""
    num_prompts: Mapping[str, int]
    """Held-out prompts by language; 0 for a language that has none."""
    comparisons: tuple[MetricComparison, ...]
    failed: Mapping[str, str]
    """Language to what failed and by how much, in words."""
    undetermined: Mapping[str, str]
    """Language to what is missing for a verdict, in words."""
    improvement: Improvement | None = None
    drift: Mapping[str, Drift] | None = None
    """By language; None where it was not measured, which ``notes`` says why."""
    notes: tuple[str, ...] = ()
    texts: tuple[ReplyPair, ...] = ()
