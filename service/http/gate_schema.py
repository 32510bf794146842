"""The gate's report as JSON, for the admin routes and for the CLI. No FastAPI in here."""

from pydantic import BaseModel, ConfigDict, Field

from trainer.gate_records import GateVerdict

Measured = float | None
"""A measurement; null when it was not a finite number."""


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class MetricView(_View):
    """One metric of one language, candidate beside baseline."""

    language: str
    metric: str = Field(
        description="`reward`, `fidelity`, `line_pass`, `word_pass`, `length`, `repetition`, `refusal`, `ungradable`; "
        "reported only: `tokens`, `tokens_per_s`."
    )
    candidate: Measured
    baseline: Measured
    difference: Measured = Field(description="Candidate less baseline, over prompts that both have.")
    low: Measured = Field(description="Lower end of the difference's interval.")
    high: Measured
    num_prompts: int
    num_replies: int = Field(description="Pairs of replies to one prompt with one seed.")
    margin: Measured = Field(description="How much worse it may be; null for what is only reported.")
    verdict: GateVerdict | None = Field(description="Null for what is only reported.")
    chance: Measured = Field(description="How often an equal policy would look as bad in any language and metric.")
    prompts_needed: int | None = Field(description="For a verdict, where it is undetermined.")


class ImprovementView(_View):
    """Whether the reward rose in the run's languages."""

    languages: list[str]
    difference: Measured
    low: Measured = Field(description="One-sided lower bound of the difference.")
    level: float = Field(description="Chance of showing a rise where there is none.")
    shown: bool


class DriftView(_View):
    """How far the candidate moved on logged replies of one language, in nats per token."""

    logprob: Measured = Field(description="Mean log-probability of a served token under the candidate.")
    baseline_logprob: Measured
    kl: Measured = Field(description="Estimated KL(baseline || candidate) on these replies.")
    num_tokens: int


class ReplyPairView(_View):
    """Both policies' first replies to one held-out prompt."""

    language: str
    prompt: str = Field(description="Digest of the prompt.")
    candidate: str
    baseline: str


class GateReportView(_View):
    """What decided about a candidate."""

    verdict: GateVerdict = Field(description="`failed` when a language failed, `undetermined` when one is.")
    exam: str = Field(description="Digest of the held-out prompts, which stay the same for a run.")
    num_prompts: dict[str, int] = Field(description="Held-out prompts by language.")
    comparisons: list[MetricView]
    failed: dict[str, str] = Field(description="Language to what failed and by how much, in words.")
    undetermined: dict[str, str] = Field(description="Language to what is missing for a verdict, in words.")
    improvement: ImprovementView | None
    drift: dict[str, DriftView] | None = Field(description="By language; null where it was not measured.")
    notes: list[str]
    texts: list[ReplyPairView] = Field(description="Empty unless `tuning.gate.keep_texts` is on.")
