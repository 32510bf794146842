"""The operator's routes: tuning runs and policies."""

from typing import Annotated

from fastapi import APIRouter, Path, Response, Security

from service.http.guard import ADMIN_KEY, AdminRoute
from service.http.openapi import problems
from service.http.state import Parts
from service.http.tuning_schema import PolicyList, PolicyView, RunBody, RunList, RunSummary, RunView

router = APIRouter(
    prefix="/admin",
    tags=["admin"],
    route_class=AdminRoute,
    dependencies=[Security(ADMIN_KEY)],
    responses=problems(401, 403, 503),
)

RunId = Annotated[str, Path(min_length=1, max_length=128, description="A run's id.")]
Version = Annotated[int, Path(ge=0, description="A published policy's version; 0 is the untuned model.")]


@router.post(
    "/tuning/runs",
    status_code=201,
    summary="Start a tuning run",
    responses={
        201: {"headers": {"Location": {"description": "Where the run's status is.", "schema": {"type": "string"}}}},
        **problems(400, 409, 413, 415, 422),
    },
)
async def start_run(body: RunBody, response: Response, parts: Parts) -> RunView:
    """One run at a time: while one is running, the answer is 409 with its id in `running_id`."""
    status = await parts.node.tuning.start(body.request())
    response.headers["Location"] = f"/admin/tuning/runs/{status.id}"
    return RunView.of(status)


@router.get("/tuning/runs", summary="List tuning runs, newest first")
async def list_runs(parts: Parts) -> RunList:
    """Runs without their steps."""
    return RunList(runs=[RunSummary.of(status) for status in await parts.node.tuning.list()])


@router.get("/tuning/runs/{run_id}", summary="A tuning run with a report per step", responses=problems(404, 422))
async def get_run(run_id: RunId, parts: Parts) -> RunView:
    """Poll it while `state` is `running` or `stopping`."""
    return RunView.of(await parts.node.tuning.status(run_id))


@router.post("/tuning/runs/{run_id}/stop", summary="Stop a tuning run", responses=problems(404, 422))
async def stop_run(run_id: RunId, parts: Parts) -> RunView:
    """The run ends after its current step. What it had published stays; an interrupted run is given up, another one
    that has ended is returned as it is."""
    return RunView.of(await parts.node.tuning.stop(run_id))


@router.post(
    "/tuning/runs/{run_id}/resume", summary="Resume an interrupted tuning run", responses=problems(404, 409, 422)
)
async def resume_run(run_id: RunId, parts: Parts) -> RunView:
    """The run goes on from its last checkpoint. 409 when it is not interrupted, when one is running (its id is in
    `running_id`), or when it was begun with another base model or other settings."""
    return RunView.of(await parts.node.tuning.resume(run_id))


@router.get("/policies", summary="List published policies, newest first")
async def list_policies(parts: Parts) -> PolicyList:
    """The untuned model is version 0 and stands last."""
    active = parts.node.policies.active_version
    records = await parts.node.policies.list()
    return PolicyList(active_version=active, policies=[PolicyView.of(record, active) for record in records])


@router.post(
    "/policies/{version}/activate", summary="Roll back or forward to a policy", responses=problems(404, 422, 500)
)
async def activate_policy(version: Version, parts: Parts) -> PolicyView:
    """New requests get this policy; requests in flight finish on the one they began with."""
    record = await parts.node.policies.activate(version)
    return PolicyView.of(record, parts.node.policies.active_version)
