"""Reward models and their trainings as JSON, for the admin routes and the CLI that calls them. No FastAPI in here."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from rewards.training.report import TrainingReport
from service.reward_models.records import TrainingState, TrainingStatus
from service.reward_models.shelf import LanguageModels, ShelvedModel
from service.reward_models.trainings import TrainingRequest

MAX_TRAININGS = 20
"""Trainings that a list shows."""


class TrainBody(BaseModel):
    """What may be chosen for one training; what is not given comes from `rewards.training`."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [{"epochs": 3, "seed": 7}]}
    )

    epochs: int | None = Field(default=None, ge=1, le=100, description="Times that every pair is trained on.")
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="AdamW's learning rate at the start.")
    rank: int | None = Field(default=None, ge=1, le=256, description="Rank of the LoRA adapter.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="Seed of the head, the adapter and the order.")

    def request(self) -> TrainingRequest:
        """The training to start."""
        return TrainingRequest(**self.model_dump())


class ActivateBody(BaseModel):
    """Which version shall judge."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": 2}]})

    version: int = Field(ge=0, le=2**31 - 1, description="An accepted version; 0 judges by none.")


class _View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class SettingsView(_View):
    """How a reward model is trained."""

    epochs: int
    learning_rate: float
    rank: int
    batch_size: int = Field(description="Pairs of an optimizer step.")
    max_tokens: int = Field(description="Longest reply with its prompt.")
    seed: int
    num_threads: int
    significance: float = Field(description="Greatest p-value at which it counts as better.")


class AccuracyView(_View):
    """Share of pairs whose chosen reply scored better."""

    num_pairs: int
    value: float
    low: float = Field(description="Low end of the 95 % Wilson interval.")
    high: float = Field(description="High end of it.")


class HeldOutView(_View):
    """A reward model on held-out pairs."""

    num_prompts: int
    accuracy: AccuracyView
    raw_accuracy: float = Field(description="Before length is taken out of the score.")
    brier: float = Field(description="Mean squared distance of sigmoid(margin) from 1; 0.25 knows nothing.")
    calibration_error: float = Field(description="Expected calibration error of sigmoid(margin).")
    raw_length_correlation: float | None = Field(
        description="Of the head's output with log(1 + words), among chosen and among rejected replies."
    )
    length_correlation: float | None = Field(description="The same, once length is taken out.")
    by_source: dict[str, AccuracyView] = Field(description="By what people did: `edit`, `comparison`, `rating`.")


class VerdictView(_View):
    """The gate's verdict: an exact one-sided sign test of held-out prompts."""

    accepted: bool
    baseline: int | None = Field(description="Version that it was compared with; null is chance.")
    wins: int = Field(description="Prompts that the new version ranks better.")
    losses: int
    p_value: float
    significance: float
    reason: str


class ReportView(_View):
    """What a training found out; the folder of the version has it as `report.json`, with the loss of each step."""

    settings: SettingsView
    num_training: dict[str, int] = Field(description="Pairs trained on, by source.")
    num_held_out: dict[str, int] = Field(description="Pairs measured on, by source.")
    num_too_long: int = Field(description="Pairs left out for their length.")
    candidate: HeldOutView
    baseline: HeldOutView | None = Field(description="The version that was active then, on the same pairs.")
    verdict: VerdictView

    @classmethod
    def of(cls, report: TrainingReport) -> "ReportView":
        return cls.model_validate(report)


class VersionSummary(BaseModel):
    """One version of a language's reward model."""

    version: int
    active: bool = Field(description="True for the version that judges.")
    accepted: bool = Field(description="Whether it may be activated.")
    backbone: str = Field(description="Id or folder of what it was trained on, as configured.")
    created_at: datetime
    num_pairs: int = Field(description="Pairs that it was trained on.")
    num_held_out: int = Field(description="Pairs that it was measured on.")
    accuracy: float | None = Field(description="Share of held-out pairs that it ranks right.")

    @classmethod
    def of(cls, model: ShelvedModel, active: int | None) -> "VersionSummary":
        return cls(
            version=model.version,
            active=model.version == active,
            accepted=model.accepted,
            backbone=model.manifest.backbone,
            created_at=datetime.fromisoformat(model.manifest.created_at),
            num_pairs=model.manifest.num_pairs,
            num_held_out=sum(model.report.num_held_out.values()),
            accuracy=model.manifest.held_out_accuracy,
        )


class VersionView(VersionSummary):
    """One version with its report."""

    report: ReportView


class LanguageSummary(BaseModel):
    """A language's reward models."""

    language: str
    active_version: int | None = Field(description="The version that judges; null when none does.")
    accuracy: float | None = Field(description="Held-out accuracy of the active version.")
    versions: list[VersionSummary] = Field(description="Newest first.")

    @classmethod
    def of(cls, models: LanguageModels) -> "LanguageSummary":
        return cls(
            language=models.language,
            active_version=models.active,
            accuracy=models.active_accuracy,
            versions=[VersionSummary.of(model, models.active) for model in models.versions],
        )


class LanguageView(BaseModel):
    """A language's reward models with their reports."""

    language: str
    active_version: int | None = Field(description="The version that judges; null when none does.")
    accuracy: float | None = Field(description="Held-out accuracy of the active version.")
    versions: list[VersionView] = Field(description="Newest first.")

    @classmethod
    def of(cls, models: LanguageModels) -> "LanguageView":
        return cls(
            language=models.language,
            active_version=models.active,
            accuracy=models.active_accuracy,
            versions=[
                VersionView(**VersionSummary.of(model, models.active).model_dump(), report=ReportView.of(model.report))
                for model in models.versions
            ],
        )


class RewardTrainingView(_View):
    """One training of a reward model."""

    id: str
    language: str
    state: TrainingState = Field(description="All but `running` are final.")
    version: int = Field(description="The version that it makes; kept once it was `accepted` or `rejected`.")
    settings: SettingsView
    num_training: dict[str, int] = Field(description="Pairs to train on, by source.")
    num_held_out: dict[str, int] = Field(description="Pairs to be measured on, by source.")
    step: int
    num_steps: int | None = Field(description="Null until the first step is done.")
    loss: float | None = Field(description="Of the last step.")
    started_at: datetime
    ended_at: datetime | None
    reason: str | None = Field(description="The gate's verdict, or what went wrong.")

    @classmethod
    def of(cls, status: TrainingStatus) -> "RewardTrainingView":
        return cls.model_validate(status)


class RewardModelList(BaseModel):
    """Reward models by language, and the newest trainings."""

    languages: list[LanguageSummary]
    trainings: list[RewardTrainingView] = Field(description="Newest first, at most 20.")
