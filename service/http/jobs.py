"""The tenants' routes for jobs: look, list, cancel."""

import re
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response, Security

from agent.errors import InvalidInput
from service.http.guard import TENANT_KEY, TenantRoute
from service.http.jobs_schema import EXAMPLE_ID, POLL_AFTER_S, JobList, JobView
from service.http.openapi import problems
from service.http.state import Parts, Tenant
from service.http.validation import EMPTY_IS_NONE, shown
from service.jobs.records import ID_PATTERN, JobState

MAX_PAGE = 100


class JobRoute(TenantRoute):
    """Looks at a job or cancels it: a tenant at its limits can still do both."""

    @property
    def generates(self) -> bool:
        return False


router = APIRouter(
    prefix="/v1/jobs",
    tags=["jobs"],
    route_class=JobRoute,
    dependencies=[Security(TENANT_KEY)],
    responses=problems(401, 403, 503),
)

JobId = Annotated[str, Path(max_length=64, description="The job's id.", examples=[EXAMPLE_ID])]
Cursor = Annotated[str | None, Query(max_length=64, description="`next_cursor` of the page before."), EMPTY_IS_NONE]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Most jobs on the page.")]
State = Annotated[JobState | None, Query(description="Only jobs in this state.")]


@router.get("", summary="List jobs, newest first", responses=problems(422))
async def list_jobs(
    tenant: Tenant, parts: Parts, cursor: Cursor = None, limit: Limit = 20, state: State = None
) -> JobList:
    """A tenant's own jobs. Finished ones are kept for `jobs.retention_s`; those that the node gave up have a
    `dead_reason` and `state` failed."""
    if cursor is not None and not re.fullmatch(ID_PATTERN, cursor):
        raise InvalidInput("cursor", f"must be the next_cursor of an earlier page, got {shown(cursor)}")
    page = await parts.node.jobs.page(tenant.id, cursor=cursor, limit=limit, state=state)
    return JobList(jobs=[JobView.of(job) for job in page.jobs], next_cursor=page.next_cursor)


@router.get("/{job_id}", summary="A job with its result", responses=problems(404, 422))
async def get_job(job_id: JobId, response: Response, tenant: Tenant, parts: Parts) -> JobView:
    """Poll it until it is final; `Retry-After` says when to look again."""
    job = await parts.node.jobs.get(tenant.id, job_id)
    if job.state.final:
        await parts.node.jobs.answered(job)
    else:
        response.headers["Retry-After"] = str(POLL_AFTER_S)
    return JobView.of(job)


@router.post("/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 422))
async def cancel_job(job_id: JobId, tenant: Tenant, parts: Parts) -> JobView:
    """The generation stops and its result, if any, is thrown away. A final job is returned as it is."""
    return JobView.of(await parts.node.jobs.cancel(tenant.id, job_id))


@router.delete("/{job_id}", summary="Cancel a job", responses=problems(404, 422))
async def delete_job(job_id: JobId, tenant: Tenant, parts: Parts) -> JobView:
    """The same as `POST /v1/jobs/{job_id}/cancel`; the record stays until it expires."""
    return JobView.of(await parts.node.jobs.cancel(tenant.id, job_id))
