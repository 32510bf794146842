"""The OpenAPI document's `webhooks`: what receivers of events get. Nothing here is called."""

from typing import Any, Generic, Literal, TypeVar

from fastapi import APIRouter
from pydantic import BaseModel, Field, create_model

from service.webhooks.events import DATA, EventData, EventType

Data = TypeVar("Data", bound=EventData)

_HEADERS = {
    "webhook-id": "Names the event; the same on every try. Ignore an event whose id you have seen.",
    "webhook-timestamp": "When this try was made, in seconds since 1970. Refuse one that is minutes old.",
    "webhook-signature": "Space-separated list of `v1,` and base64 of HMAC-SHA256 over `id.timestamp.body`.",
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    "410": {"description": "Gone: the endpoint is disabled and gets no more events."},
    "429": {"description": "Slow down; `Retry-After` is heeded, as with 502, 503 and 504."},
    "default": {"description": "Failed: tried again after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 hours."},
}


class Event(BaseModel, Generic[Data]):
    """An event as it is sent, signed by the rules of Standard Webhooks (https://www.standardwebhooks.com)."""

    timestamp: str = Field(description="When it happened, ISO 8601 in UTC.", examples=["2026-01-01T00:00:00.000Z"])
    data: Data


def event_router() -> APIRouter:
    """Every type of event as an operation that a receiver implements."""
    router = APIRouter()
    for event_type, data in DATA.items():
        _describe(router, event_type, data)
    return router


def _describe(router: APIRouter, event_type: EventType, data: type[EventData]) -> None:
    async def receive(body: Any) -> None:
        """Answer 2xx within 15 seconds. Every event comes at least once; a repetition has the same `webhook-id`."""

    receive.__annotations__["body"] = _model(event_type, data)
    router.add_api_route(
        event_type.value,
        receive,
        methods=["POST"],
        status_code=204,
        response_description="Taken; any 2xx says so.",
        tags=["events"],
        summary=(data.__doc__ or "").splitlines()[0],
        operation_id=f"receive_{event_type.value.replace('.', '_')}",
        responses=_RESPONSES,
        openapi_extra={
            "parameters": [
                {"name": name, "in": "header", "required": True, "description": text, "schema": {"type": "string"}}
                for name, text in _HEADERS.items()
            ]
        },
    )


def _model(event_type: EventType, data: type[EventData]) -> type[BaseModel]:
    """The event's body."""
    name = "".join(part.title() for part in event_type.value.split("."))
    kind: Any = (Literal[event_type.value], Field(examples=[event_type.value]))
    base: Any = Event[data]  # type: ignore[valid-type]  # chosen at run time
    model: type[BaseModel] = create_model(f"{name}Event", __base__=base, type=kind)
    return model
