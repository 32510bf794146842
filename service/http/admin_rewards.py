"""The operator's route of preference pairs."""

from typing import Annotated

from fastapi import APIRouter, Path, Security
from fastapi.responses import StreamingResponse

from agent.language import primary_code
from service.feedback.export import MEDIA_TYPE, export_chunks
from service.http.guard import ADMIN_KEY, AdminRoute
from service.http.openapi import problems
from service.http.state import Parts

NUM_PAIRS_HEADER = "X-Num-Pairs"

router = APIRouter(
    prefix="/admin/rewards",
    tags=["admin"],
    route_class=AdminRoute,
    dependencies=[Security(ADMIN_KEY)],
    responses=problems(401, 403, 503),
)

LanguageCode = Annotated[
    str, Path(pattern=r"^[a-z]{2,3}$", description="ISO 639-1 code of a language.", examples=["de"])
]


@router.get(
    "/{language}/pairs",
    summary="Export a language's preference pairs",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One JSON object a line, in TRL's conversational preference format.",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
            "headers": {NUM_PAIRS_HEADER: {"description": "Lines that follow.", "schema": {"type": "integer"}}},
        },
        **problems(422),
    },
)
async def export_pairs(language: LanguageCode, parts: Parts) -> StreamingResponse:
    """What reward models learn from: `prompt`, `chosen`, `rejected`, and `id`, `source`, `held_out`; under the caps on
    influence, without end users and tenants. Empty when there are none."""
    pairs = await parts.node.feedback.pairs.pairs(primary_code(language))
    headers = {
        NUM_PAIRS_HEADER: str(len(pairs)),
        "Content-Disposition": f'attachment; filename="pairs-{language}.jsonl"',
    }
    return StreamingResponse(export_chunks(pairs), media_type=MEDIA_TYPE, headers=headers)
