"""The operator's route of single requests."""

from typing import Annotated

from fastapi import APIRouter, Path, Security

from service.http.feedback_schema import EXAMPLE_ID, MAX_ID_CHARS
from service.http.guard import ADMIN_KEY, AdminRoute
from service.http.inspection_schema import RequestView
from service.http.openapi import problems
from service.http.state import Parts

router = APIRouter(
    prefix="/admin/requests",
    tags=["admin"],
    route_class=AdminRoute,
    dependencies=[Security(ADMIN_KEY)],
    responses=problems(401, 403, 503),
)


@router.get("/{request_id}", summary="A request with its reward and feedback", responses=problems(404, 422))
async def get_request(
    request_id: Annotated[
        str, Path(min_length=1, max_length=MAX_ID_CHARS, description="The reply's id.", examples=[EXAMPLE_ID])
    ],
    parts: Parts,
) -> RequestView:
    """The brief as it was, the served text, and every part of its reward as the present judges see it. It shows what
    people wrote: an operator's route."""
    return RequestView.of(await parts.node.feedback.inspector.inspect(request_id))
