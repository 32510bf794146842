"""Canaries, promotions and pins as JSON, for the admin routes and for the CLI that calls them. No FastAPI in here."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from service.canary.comparison import Difference, Finding
from service.canary.parts import Status
from service.canary.records import Kind, Outcome, TrialRecord
from service.canary.tally import Measure

Tenant = Annotated[str, Field(min_length=1, max_length=63)]
Language = Annotated[str, Field(min_length=2, max_length=35)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class CanaryBody(_Body):
    """How to try a policy; what is not given comes from the section `[canary]`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"share": 0.1, "languages": ["de", "en"]}]})

    share: float | None = Field(default=None, gt=0, le=0.5, description="Share of the end users.")
    languages: list[Language] = Field(
        default_factory=list, max_length=64, description="Languages that take part; empty takes all."
    )


class PromoteBody(_Body):
    """Whom to give a policy."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"force": False}]})

    tenant: Tenant | None = Field(default=None, description="One tenant alone; null is everybody.")
    force: bool = Field(default=False, description="Also when its last trial found harm.")


class RollbackBody(_Body):
    """What to go back to."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}]})

    to: int | None = Field(default=None, ge=0, description="A published version; null is the one before.")
    tenant: Tenant | None = Field(default=None, description="Of one tenant's own policy; null is everybody's.")


class PinBody(_Body):
    """Who is to stay with a policy."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"tenant": "acme", "language": "de"}]})

    tenant: Tenant
    language: Language | None = Field(default=None, description="One of the tenant's languages; null is all of them.")


class TrialView(BaseModel):
    """A canary, or the watch over a policy that took over."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    kind: Kind
    candidate: int = Field(description="The policy that is tried or watched.")
    stable: int = Field(description="The policy that it is compared with.")
    share: float = Field(description="Share of the end users that the candidate answers.")
    languages: list[str]
    started_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None = Field(description="Null while it runs.")
    reason: str | None

    @classmethod
    def of(cls, record: TrialRecord) -> "TrialView":
        return cls.model_validate(record)


class DifferenceView(BaseModel):
    """One measure in one language. `harm`, `lower` and `upper` count what is worse as positive."""

    model_config = ConfigDict(from_attributes=True)

    language: str
    measure: Measure
    num_candidate: int
    num_stable: int
    candidate_mean: float
    stable_mean: float
    harm: float = Field(description="How much worse the candidate is.")
    lower: float = Field(description="Lower end of an interval that may be looked at at any time.")
    upper: float
    allowed: float = Field(description="How much worse it may be.")
    finding: Finding

    @classmethod
    def of(cls, found: Difference) -> "DifferenceView":
        return cls.model_validate(found)


class CanaryView(BaseModel):
    """What is tried now, and what was."""

    running: TrialView | None = Field(description="The canary or watch in progress.")
    differences: list[DifferenceView]
    missing: list[str] = Field(description="What is not shown yet, before the canary can be promoted.")
    num_candidate: dict[str, int] = Field(description="Replies of the candidate that were compared, by language.")
    num_stable: dict[str, int]
    ended: list[TrialView] = Field(description="The newest hundred that ended, newest first.")
    tenant_policies: dict[str, int] = Field(description="Tenants that have a policy of their own, and which.")

    @classmethod
    def of(cls, status: Status, tenant_policies: dict[str, int]) -> "CanaryView":
        return cls(
            running=None if status.record is None else TrialView.of(status.record),
            differences=[DifferenceView.of(found) for found in status.differences],
            missing=list(status.missing),
            num_candidate=status.num_candidate,
            num_stable=status.num_stable,
            ended=[TrialView.of(record) for record in status.ended],
            tenant_policies=tenant_policies,
        )
