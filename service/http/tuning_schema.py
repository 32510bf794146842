"""Tuning runs and policies as JSON, for the admin routes and for the CLI that calls them. No FastAPI in here."""

import secrets
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.http.gate_schema import GateReportView
from trainer.records import PolicyRecord, RunRequest, RunState, RunStatus

_SEEDS = 2**31
Measured = float | None
"""A measurement; null when it was not a finite number."""
Language = Annotated[str, Field(min_length=2, max_length=35)]


class RunBody(BaseModel):
    """What may be chosen per run; what is not given comes from the node's configuration."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={"examples": [{"languages": ["de", "en"], "steps": 10, "group_size": 8, "seed": 7}]},
    )

    languages: list[Language] = Field(
        default_factory=list, max_length=64, description="Languages to draw prompts from; empty draws from all."
    )
    steps: int | None = Field(default=None, ge=1, le=100_000, description="Optimizer steps.")
    group_size: int | None = Field(default=None, ge=2, le=256, description="Sibling replies sampled per prompt.")
    prompts_per_step: int | None = Field(default=None, ge=1, le=1024, description="Prompts claimed for one step.")
    max_tokens: int | None = Field(default=None, ge=1, le=100_000, description="Longest sibling reply, in tokens.")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="AdamW's learning rate.")
    publish_every: int | None = Field(default=None, ge=1, le=100_000, description="Publish after so many steps.")
    gate: bool | None = Field(default=None, description="Compare with the active policy before publishing.")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=2**32 - 1,
        description="Seed of prompt choice, sampling and held-out replies; null draws one, which the run shows.",
    )
    tenant: str | None = Field(
        default=None, max_length=63, description="Tune on this tenant's prompts, for it alone; null is for all tenants."
    )

    def request(self) -> RunRequest:
        """The run to start.

        Runs without a seed get one each: with the same one they would draw the same prompts and noise again, and be
        judged by the same held-out replies.
        """
        seed = secrets.randbelow(_SEEDS) if self.seed is None else self.seed
        return RunRequest(**{**self.model_dump(), "languages": tuple(self.languages), "seed": seed})


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class RequestView(_View):
    """What was chosen for a run; null was taken from the configuration."""

    languages: list[str]
    steps: int | None
    group_size: int | None
    prompts_per_step: int | None
    max_tokens: int | None
    learning_rate: float | None
    publish_every: int | None
    gate: bool | None
    seed: int
    tenant: str | None = None


class StepView(_View):
    """One optimizer step."""

    step: int = Field(description="Counts from 1.")
    version: int = Field(description="Policy version that the step made.")
    num_sequences: int
    num_tokens: int
    reward_mean: Measured
    reward_std: Measured
    reward_by_language: dict[str, Measured]
    parts: dict[str, Measured] = Field(description="Mean of each part of the reward.")
    dropped: dict[str, int] = Field(description="What was not trained on, by reason.")
    loss: Measured
    grad_norm: Measured
    clip_fraction: Measured
    effective_sample_size: Measured = Field(description="Of the importance weights, in (0, 1].")
    mismatch_mean: Measured = Field(description="Mean |engine logprob - trainer logprob|, in nats.")
    mismatch_max: Measured = Field(default=None, description="The largest of a token, in nats.")
    entropy: Measured = Field(default=None, description="Mean entropy of the sampled tokens' distributions, in nats.")
    behaviour_kl: Measured = Field(default=None, description="Estimated KL(engine || trained policy), in nats.")
    base_kl: Measured = Field(default=None, description="Estimated KL(trained policy || base), null without the term.")
    rollout_s: float
    score_s: float
    train_s: float
    install_s: float
    passed_over: dict[str, int] = Field(description="Logged prompts that were not claimed, by reason.")
    num_logged_groups: int = Field(description="Groups that requests with `n` or `best_of` had logged.")
    num_sampled_groups: int = Field(description="Groups that were sampled for the step.")
    staleness_mean: Measured = Field(
        description="Optimizer steps since the trained tokens were sampled, mean over tokens."
    )
    staleness_max: int
    parts_by_language: dict[str, dict[str, Measured]] = Field(
        default={}, description="Mean of each part of the reward, by part and language."
    )


def _named_pair(value: object) -> object:
    return {"candidate": value[0], "baseline": value[1]} if isinstance(value, tuple) else value


class Comparison(BaseModel):
    """A candidate's mean beside the active policy's."""

    candidate: Measured
    baseline: Measured


Pair = Annotated[Comparison, BeforeValidator(_named_pair)]


class EvaluationView(_View):
    """Held-out comparison of a candidate with the policy that it would replace."""

    version: int
    baseline_version: int
    reward: Measured
    baseline_reward: Measured
    by_language: dict[str, Pair] = Field(description="Mean reward by language.")
    fidelity: dict[str, Pair] = Field(description="Share of text in the language, by the gate's own detector.")
    rejected: dict[str, str] = Field(description="Language to the reason it fails; empty when it passes.")
    report: GateReportView | None = Field(
        default=None, description="How it was decided; null for evaluations that were recorded without."
    )


class ParityView(_View):
    """Engine against trainer on the probe's tokens, in nats."""

    num_tokens: int
    mean: Measured
    max: Measured


class RunSummary(BaseModel):
    """One tuning run, without its steps."""

    id: str
    state: RunState = Field(
        description="All but `running` and `stopping` are final; an `interrupted` run can be resumed."
    )
    started_at: datetime
    ended_at: datetime | None
    num_steps: int = Field(description="Steps that the run will take.")
    steps_done: int
    published: list[int] = Field(description="Policy versions that the run published.")
    reason: str | None = Field(description="Why the run failed, was rejected, stopped or interrupted.")
    resumed_after: list[int] = Field(
        default=[], description="For each time that it was resumed, the steps it had taken."
    )

    @classmethod
    def of(cls, status: RunStatus) -> "RunSummary":
        return cls(
            id=status.id,
            state=status.state,
            started_at=status.started_at,
            ended_at=status.ended_at,
            num_steps=status.num_steps,
            steps_done=len(status.steps),
            published=list(status.published),
            reason=status.reason,
            resumed_after=list(status.resumed_after),
        )


class RunView(RunSummary):
    """One tuning run with a report per step."""

    request: RequestView
    steps: list[StepView]
    evaluation: EvaluationView | None

    @classmethod
    def of(cls, status: RunStatus) -> "RunView":
        return cls(
            **RunSummary.of(status).model_dump(),
            request=RequestView.model_validate(status.request),
            steps=[StepView.model_validate(step) for step in status.steps],
            evaluation=EvaluationView.model_validate(status.evaluation) if status.evaluation is not None else None,
        )


class RunList(BaseModel):
    """Runs, newest first."""

    runs: list[RunSummary]


class PolicyView(BaseModel):
    """One published policy; version 0 is the untuned model."""

    version: int
    active: bool = Field(description="True for the policy that new requests get.")
    method: str = Field(description="`base` or `adapter`.")
    parent: int | None
    run_id: str | None = Field(description="The run that published it.")
    created_at: datetime
    sha256: str | None = Field(description="Digest of the manifest, which holds the digest of every file.")
    parity: ParityView | None
    evaluation: EvaluationView | None
    tenant: str | None = Field(default=None, description="Whose it is alone; null is for all.")

    @classmethod
    def of(cls, record: PolicyRecord, active_version: int) -> "PolicyView":
        return cls(
            version=record.version,
            active=record.version == active_version,
            method=record.method,
            parent=record.parent,
            run_id=record.run_id,
            created_at=record.created_at,
            sha256=record.sha256,
            parity=ParityView.model_validate(record.parity) if record.parity is not None else None,
            evaluation=EvaluationView.model_validate(record.evaluation) if record.evaluation is not None else None,
            tenant=record.tenant,
        )


class PolicyList(BaseModel):
    """Policies, newest first, the untuned model last."""

    active_version: int
    policies: list[PolicyView]
