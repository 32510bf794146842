"""What `coloq bench learn` asks of its hosted node beside the product's own routes: bodies of the control routes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from agent.brief import Brief
from service.bench.learning.exam import Graded
from service.http.tuning_schema import StepView
from trainer.objective_settings import ImportanceCorrection


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SeedOrder(_Message):
    """Put prompts into the journal, as if they had been asked."""

    briefs: list[Brief]


class SeedView(_Message):
    """What the journal was given."""

    num_prompts: int
    longest: int
    """Tokens of the longest prompt."""


class ExamOrder(_Message):
    """Let a version answer prompts, and grade the replies."""

    briefs: list[Brief]
    replies: Annotated[int, Field(ge=1)]
    """To each prompt."""
    max_tokens: Annotated[int, Field(ge=1)]
    seed: int
    version: int | None = None
    """None takes the one that answers."""


class ExamView(_Message):
    """Grades, prompt by prompt."""

    version: int
    replies: list[Graded]


class TrailOrder(_Message):
    """Start a run whose rollouts come from a policy that is ``lag`` steps old."""

    languages: list[str]
    steps: Annotated[int, Field(ge=1)]
    prompts_per_step: Annotated[int, Field(ge=1)]
    group_size: Annotated[int, Field(ge=2)]
    max_tokens: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    seed: int
    lag: Annotated[int, Field(ge=0)]
    correction: ImportanceCorrection


class TrailView(_Message):
    """That run so far."""

    running: bool
    steps: list[StepView]
    at_s: list[float]
    """When each step was reported, in seconds since the run began."""
    published: int | None = None
    failure: str | None = None
