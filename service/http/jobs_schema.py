"""Jobs as JSON."""

import json
from datetime import datetime

from pydantic import BaseModel, Field, JsonValue

from service.http.problem_schema import Problem
from service.jobs.records import Job, JobState

POLL_AFTER_S = 2
"""Seconds that a caller waits between two looks at a job."""
EXAMPLE_ID = "job_019ab2c3d4e5f60718293a4b5c6d"


class JobView(BaseModel):
    """A call that became a job. `result` or `problem` is what the call would have been answered with."""

    id: str = Field(examples=[EXAMPLE_ID])
    state: JobState = Field(description="`queued` and `running` are not final; the others never change.")
    poll_url: str = Field(description="Path of this job.", examples=[f"/v1/jobs/{EXAMPLE_ID}"])
    route: str = Field(description="The route that took the call.", examples=["/v1/content"])
    request_id: str = Field(description="The call's id; the journal knows the reply by it.")
    created_at: datetime
    started_at: datetime | None = Field(description="When the newest try began.")
    finished_at: datetime | None
    attempts: int = Field(description="Tries so far; the node tries again what failed by its own fault.")
    result: dict[str, JsonValue] | None = Field(description="The reply, once the job has succeeded.")
    problem: Problem | None = Field(description="Why the job failed, or that it was cancelled.")
    dead_reason: str | None = Field(description="Why the node does not try again; null unless it gave the job up.")

    @classmethod
    def of(cls, job: Job) -> "JobView":
        """The view of a job."""
        succeeded = job.state is JobState.SUCCEEDED
        return cls(
            id=job.id,
            state=job.state,
            poll_url=f"/v1/jobs/{job.id}",
            route=job.order.route,
            request_id=job.order.request_id,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            attempts=job.attempts,
            result=json.loads(job.answer.body) if job.answer is not None and succeeded else None,
            problem=Problem.model_validate_json(job.answer.body) if job.answer is not None and not succeeded else None,
            dead_reason=job.dead_reason,
        )


class JobList(BaseModel):
    """Some of the tenant's jobs."""

    jobs: list[JobView] = Field(description="Newest first.")
    next_cursor: str | None = Field(
        description="Pass it as `cursor` for older jobs; null on the last page. With `state` a page may be short, or"
        " empty, and still name the next."
    )
