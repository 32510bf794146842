"""Events that are sent out: their types, what each carries, and their body on the wire."""

import json
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

MAX_BODY_BYTES = 20_000
"""Standard Webhooks recommends bodies below 20 kB."""
MAX_THIN_TEXT_CHARS = 200
"""Longest text that stays in the data of a thin event."""


class EventType(StrEnum):
    """What a tenant can be told of."""

    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    POLICY_PUBLISHED = "policy.published"
    POLICY_ACTIVATED = "policy.activated"
    CANARY_STARTED = "policy.canary.started"
    CANARY_ENDED = "policy.canary.ended"
    TUNING_RUN_FINISHED = "tuning.run.finished"
    ENDPOINT_DISABLED = "webhook.endpoint.disabled"
    TEST = "webhook.test"


class EventData(BaseModel):
    """What an event carries. Fields may be added; receivers ignore those that they do not know."""

    model_config = ConfigDict(extra="allow")


class JobData(EventData):
    """A job that has ended. An event that would be too large carries `link` in place of `result`."""

    id: str = Field(description="The job's id.", examples=["job_5Tn9bX7aVd"])
    state: str = Field(description="`succeeded`, `failed` or `cancelled`.", examples=["succeeded"])
    poll_url: str | None = Field(default=None, description="Where the job is.", examples=["/v1/jobs/job_5Tn9bX7aVd"])
    result: dict[str, Any] | None = Field(
        default=None,
        description="The reply, as of `POST /v1/content`.",
        examples=[{"text": "Unsere neue Fahrradklingel ist da.", "language": "de"}],
    )
    problem: dict[str, Any] | None = Field(default=None, description="Why it failed, as problem+json.")


class PolicyData(EventData):
    """The policy that answers from now on."""

    version: int = Field(description="The policy that answers.", examples=[4])
    previous_version: int = Field(description="The policy that answered before.", examples=[3])


class CanaryStartedData(EventData):
    """A policy that answers a share of the end users from now on."""

    id: str = Field(description="The canary's id.", examples=["canary-v4-1767225600"])
    version: int = Field(description="The policy that is tried.", examples=[4])
    stable_version: int = Field(description="The policy that answers everybody else.", examples=[3])
    share: float = Field(description="Share of the end users.", examples=[0.1])
    languages: list[str] = Field(description="Languages that take part.", examples=[["de", "en"]])


class CanaryEndedData(EventData):
    """A canary, or the watch over a policy that took over, has ended."""

    id: str = Field(description="Its id.", examples=["canary-v4-1767225600"])
    kind: str = Field(description="`canary` or `watch`.", examples=["canary"])
    version: int = Field(description="The policy that was tried or watched.", examples=[4])
    stable_version: int = Field(description="The policy that it was compared with.", examples=[3])
    outcome: str = Field(
        description="`promoted`, `harmful`, `undecided`, `stopped`, `superseded`, `interrupted` or `passed`.",
        examples=["promoted"],
    )


class RunData(EventData):
    """A tuning run that has ended."""

    id: str = Field(description="The run's id.", examples=["run_0c1d2e3f4a5b"])
    state: str = Field(description="`succeeded`, `stopped`, `rejected` or `failed`.", examples=["succeeded"])
    published: list[int] = Field(description="Policy versions that it published.", examples=[[4]])


class EndpointDisabledData(EventData):
    """An endpoint that gets no more events until it is enabled again."""

    id: str = Field(description="The endpoint's id.", examples=["ep_9bX7aVd5EwQ2"])
    reason: str = Field(description="Why.", examples=["it answered 410 Gone"])


class TestData(EventData):
    """An event that somebody asked for to see whether it arrives."""

    message: str = Field(examples=["A test event. Nothing has happened."])


DATA: Mapping[EventType, type[EventData]] = {
    EventType.JOB_COMPLETED: JobData,
    EventType.JOB_FAILED: JobData,
    EventType.POLICY_PUBLISHED: PolicyData,
    EventType.POLICY_ACTIVATED: PolicyData,
    EventType.CANARY_STARTED: CanaryStartedData,
    EventType.CANARY_ENDED: CanaryEndedData,
    EventType.TUNING_RUN_FINISHED: RunData,
    EventType.ENDPOINT_DISABLED: EndpointDisabledData,
    EventType.TEST: TestData,
}
"""What each type of event carries."""


def sample(event_type: EventType) -> dict[str, Any]:
    """Data of an event of this type, made of its fields' examples."""
    fields = DATA[event_type].model_fields.items()
    return {name: info.examples[0] for name, info in fields if info.examples}


def timestamp(at: datetime) -> str:
    """A time as events write it."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def event_body(event_type: str, at: datetime, data: Mapping[str, Any]) -> str:
    """The body on the wire, whatever its size."""
    return compact({"type": event_type, "timestamp": timestamp(at), "data": data})


def thin_body(event_type: str, at: datetime, data: Mapping[str, Any], link: str) -> str:
    """The body with a link in place of what makes it large: numbers and short texts of the first level stay."""
    short = {name: value for name, value in data.items() if _is_short(value)}
    thin = {**short, "truncated": True, "link": link}
    body = event_body(event_type, at, thin)
    return body if fits(body) else event_body(event_type, at, {"truncated": True, "link": link})


def fits(body: str) -> bool:
    """True when the body is small enough to be sent."""
    return len(body.encode()) <= MAX_BODY_BYTES


def _is_short(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float) or _is_short_text(value)


def _is_short_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_THIN_TEXT_CHARS


def compact(value: Mapping[str, Any]) -> str:
    """JSON without spaces."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
