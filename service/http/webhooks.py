"""The tenants' routes for events that are sent out: endpoints, and the log of deliveries."""

import re
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Path, Query, Response

from agent.errors import InvalidInput
from service.http.guard import ADMIN_ONLY, tenant_router
from service.http.openapi import problems
from service.http.state import Parts, Tenant
from service.http.validation import EMPTY_IS_NONE, shown
from service.http.webhook_schema import (
    DeliveryPage,
    DeliveryView,
    EndpointBody,
    EndpointList,
    EndpointPatch,
    EndpointView,
    NewEndpoint,
    NewSecret,
    SampleEvent,
)
from service.webhooks.assembly import Webhooks
from service.webhooks.deliveries import ID_PATTERN
from service.webhooks.events import EventType, sample, timestamp
from service.webhooks.records import DeliveryState

router = tenant_router("/v1/webhooks", "webhooks")


async def _webhooks(parts: Parts) -> Webhooks:
    return parts.node.webhooks


Office = Annotated[Webhooks, Depends(_webhooks)]
EndpointId = Annotated[str, Path(min_length=1, max_length=64, description="An endpoint's id.")]
DeliveryId = Annotated[str, Path(min_length=1, max_length=64, description="A delivery's id.")]


@router.post(
    "/endpoints",
    status_code=201,
    summary="Add an endpoint",
    responses=problems(400, 409, 413, 415, 422),
    openapi_extra=ADMIN_ONLY,
)
async def create_endpoint(body: EndpointBody, tenant: Tenant, office: Office) -> NewEndpoint:
    """The answer holds the secret, this once. The receiver needs no handshake; `POST …/test` sends it an event."""
    endpoint = await office.endpoints.create(tenant.id, body.url, body.event_types or (), body.description or "")
    return NewEndpoint.of(endpoint)


@router.get("/endpoints", summary="List endpoints, oldest first", openapi_extra=ADMIN_ONLY)
async def list_endpoints(tenant: Tenant, office: Office) -> EndpointList:
    """Without secrets."""
    return EndpointList(endpoints=[EndpointView.of(item) for item in await office.endpoints.list(tenant.id)])


@router.get("/endpoints/{endpoint_id}", summary="An endpoint", responses=problems(404, 422), openapi_extra=ADMIN_ONLY)
async def get_endpoint(endpoint_id: EndpointId, tenant: Tenant, office: Office) -> EndpointView:
    """Without its secret. `disabled_reason` says why the node stopped sending."""
    return EndpointView.of(await office.endpoints.get(tenant.id, endpoint_id))


@router.patch(
    "/endpoints/{endpoint_id}",
    summary="Change an endpoint",
    responses=problems(400, 404, 413, 415, 422),
    openapi_extra=ADMIN_ONLY,
)
async def update_endpoint(endpoint_id: EndpointId, body: EndpointPatch, tenant: Tenant, office: Office) -> EndpointView:
    """What is queued for it goes to its new URL. Enabling it forgets why it was disabled."""
    return EndpointView.of(await office.endpoints.update(tenant.id, endpoint_id, body.change()))


@router.delete(
    "/endpoints/{endpoint_id}",
    status_code=204,
    summary="Delete an endpoint",
    responses=problems(404, 422),
    openapi_extra=ADMIN_ONLY,
)
async def delete_endpoint(endpoint_id: EndpointId, tenant: Tenant, office: Office) -> None:
    """What is queued for it is discarded."""
    await office.endpoints.delete(tenant.id, endpoint_id)


@router.post(
    "/endpoints/{endpoint_id}/rotate",
    summary="Give an endpoint a new secret",
    responses=problems(404, 422),
    openapi_extra=ADMIN_ONLY,
)
async def rotate_endpoint_secret(endpoint_id: EndpointId, tenant: Tenant, office: Office) -> NewSecret:
    """Until `previous_secret_until` events carry two signatures, so that the receiver can change over in its time."""
    return NewSecret.of((await office.endpoints.rotate(tenant.id, endpoint_id)).secrets)


@router.post(
    "/endpoints/{endpoint_id}/test",
    status_code=202,
    summary="Send a test event",
    responses=problems(404, 409, 422),
    openapi_extra=ADMIN_ONLY,
)
async def test_endpoint(endpoint_id: EndpointId, response: Response, tenant: Tenant, office: Office) -> DeliveryView:
    """Queues a `webhook.test` event, whatever types the endpoint wants; `Location` shows what became of it."""
    delivery = await office.deliveries.test(tenant.id, endpoint_id)
    response.headers["Location"] = f"/v1/webhooks/deliveries/{delivery.id}"
    return DeliveryView.of(delivery)


@router.get(
    "/endpoints/{endpoint_id}/sample",
    summary="Examples of the endpoint's events",
    responses=problems(404, 422),
    openapi_extra=ADMIN_ONLY,
)
async def sample_endpoint(endpoint_id: EndpointId, tenant: Tenant, office: Office) -> list[SampleEvent]:
    """One of each type that the endpoint gets; nothing is sent. A list of objects with ids, as Zapier wants it."""
    endpoint = await office.endpoints.get(tenant.id, endpoint_id)
    now = timestamp(datetime.now(UTC))
    return [
        SampleEvent(id=f"sample_{event_type.value}", type=event_type.value, timestamp=now, data=sample(event_type))
        for event_type in EventType
        if not endpoint.event_types or event_type in endpoint.event_types
    ]


@router.post("/callback-secret", summary="Make a new secret for callbacks", openapi_extra=ADMIN_ONLY)
async def rotate_callback_secret(tenant: Tenant, office: Office) -> NewSecret:
    """It signs what is sent to the `callback_url` of requests. Until `previous_secret_until` the one before it signs
    too."""
    return NewSecret.of(await office.endpoints.rotate_callback_secret(tenant.id))


@router.get("/deliveries", summary="List deliveries, newest first", responses=problems(422))
async def list_deliveries(
    tenant: Tenant,
    office: Office,
    cursor: Annotated[
        str | None, Query(max_length=64, description="`next_cursor` of the page before."), EMPTY_IS_NONE
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Most deliveries of a page.")] = 50,
    state: Annotated[DeliveryState | None, Query(description="Only these, such as `failed`.")] = None,
) -> DeliveryPage:
    """Kept for a week, with every try. With `state` a page may be short though `next_cursor` leads on."""
    if cursor is not None and not re.fullmatch(ID_PATTERN, cursor):
        raise InvalidInput("cursor", f"must be the next_cursor of an earlier page, got {shown(cursor)}")
    page = await office.deliveries.page(tenant.id, cursor=cursor, limit=limit, state=state)
    return DeliveryPage(deliveries=[DeliveryView.of(item) for item in page.deliveries], next_cursor=page.next_cursor)


@router.get("/deliveries/{delivery_id}", summary="A delivery with its tries", responses=problems(404, 422))
async def get_delivery(delivery_id: DeliveryId, tenant: Tenant, office: Office) -> DeliveryView:
    """`state` is `pending` while it is being tried."""
    return DeliveryView.of(await office.deliveries.get(tenant.id, delivery_id))


@router.get(
    "/deliveries/{delivery_id}/data",
    summary="The data of an event that was too large to send",
    response_class=Response,
    responses={
        200: {"content": {"application/json": {"schema": {"type": "object"}}}, "description": "The event's `data`."},
        **problems(404, 422),
    },
)
async def get_delivery_data(delivery_id: DeliveryId, tenant: Tenant, office: Office) -> Response:
    """What `link` in a truncated event leads to."""
    return Response(await office.deliveries.data(tenant.id, delivery_id), media_type="application/json")


@router.post(
    "/deliveries/{delivery_id}/replay",
    status_code=202,
    summary="Send a delivery once more",
    responses=problems(404, 409, 422),
    openapi_extra=ADMIN_ONLY,
)
async def replay_delivery(delivery_id: DeliveryId, tenant: Tenant, office: Office) -> DeliveryView:
    """From the first try on, under the same `webhook-id`, to the endpoint's present URL."""
    return DeliveryView.of(await office.deliveries.replay(tenant.id, delivery_id))
