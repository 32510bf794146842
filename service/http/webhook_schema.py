"""Endpoints, deliveries and inbound hooks as JSON. Secrets are in the answers that make them, and nowhere else."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.webhooks.endpoints import EndpointChange
from service.webhooks.events import EventType
from service.webhooks.hook import Check, Hook, Verification
from service.webhooks.hooks import MAX_SECRET_CHARS, new_check
from service.webhooks.records import Delivery, DeliveryState, Endpoint, SigningSecrets

Url = Annotated[str, Field(min_length=1, max_length=2048)]
MAX_MAPPED_FIELDS = 64
MAX_PAYLOAD_ITEMS = 10_000
PayloadItems = Annotated[list[JsonValue], Field(max_length=MAX_PAYLOAD_ITEMS)]

_EVENT_TYPES = "Types of events to send; an empty list sends every type."
_NEW_EVENT_TYPES = "Types of events to send; an empty list, or none, sends every type."


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EndpointBody(_Body):
    """A receiver of events."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"url": "https://hooks.example.com/coloq", "event_types": ["job.completed", "job.failed"]}]
        }
    )

    url: Url = Field(description="Public https URL that takes POST. Redirects are not followed.")
    event_types: list[EventType] | None = Field(default=None, max_length=32, description=_NEW_EVENT_TYPES)
    description: str | None = Field(default=None, max_length=200, description="Your own note.")


class EndpointPatch(_Body):
    """What to change; what is left out, or null, stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": True}]})

    url: Url | None = Field(default=None, description="Public https URL that takes POST.")
    event_types: list[EventType] | None = Field(default=None, max_length=32, description=_EVENT_TYPES)
    description: str | None = Field(default=None, max_length=200, description="Your own note.")
    enabled: bool | None = Field(default=None, description="False stops sending; true starts it again.")

    def change(self) -> EndpointChange:
        """The change to make."""
        event_types = None if self.event_types is None else tuple(self.event_types)
        return EndpointChange(self.url, event_types, self.description, self.enabled)


class EndpointView(BaseModel):
    """A receiver of events."""

    id: str = Field(examples=["ep_0c1d2e3f4a5b6c7d8e9f0a1b"])
    url: str
    event_types: list[str] = Field(description=_EVENT_TYPES)
    description: str
    enabled: bool
    disabled_reason: str | None = Field(description="Why the node disabled it; null when it did not.")
    created_at: datetime
    previous_secret_until: datetime | None = Field(
        description="Until when the secret before the last rotation signs too."
    )

    @classmethod
    def of(cls, endpoint: Endpoint) -> "EndpointView":
        return cls(
            id=endpoint.id,
            url=endpoint.url,
            event_types=list(endpoint.event_types),
            description=endpoint.description,
            enabled=endpoint.enabled,
            disabled_reason=endpoint.disabled_reason,
            created_at=endpoint.created_at,
            previous_secret_until=endpoint.secrets.previous_until,
        )


class NewEndpoint(EndpointView):
    """A receiver with its secret."""

    secret: str = Field(description="Verifies signatures. Shown this once.", examples=["whsec_AAAA…"])

    @classmethod
    def of(cls, endpoint: Endpoint) -> "NewEndpoint":
        return cls(**EndpointView.of(endpoint).model_dump(), secret=endpoint.secrets.current)


class EndpointList(BaseModel):
    """The tenant's receivers, oldest first."""

    endpoints: list[EndpointView]


class NewSecret(BaseModel):
    """A secret that signs from now on."""

    secret: str = Field(description="Shown this once.", examples=["whsec_AAAA…"])
    previous_secret_until: datetime | None = Field(description="Until when the secret before it signs too.")

    @classmethod
    def of(cls, secrets: SigningSecrets) -> "NewSecret":
        return cls(secret=secrets.current, previous_secret_until=secrets.previous_until)


class AttemptView(BaseModel):
    """One try."""

    at: datetime
    duration_ms: float
    status: int | None = Field(description="What the receiver answered; null when it did not.")
    error: str | None = Field(
        description="`timeout`, `connection_failed`, `tls_failed`, `name_not_resolved`, `destination_refused` or"
        " `broken_answer`; null when it answered."
    )


class DeliveryView(BaseModel):
    """One event on its way to one receiver."""

    id: str = Field(description="Sent as `webhook-id`, the same on every try.", examples=["msg_0c1d2e3f4a5b6c7d"])
    event_type: str
    endpoint_id: str | None = Field(description="Null for a callback URL.")
    callback_url: str | None = Field(description="The callback URL of a request; null for an endpoint.")
    state: DeliveryState = Field(description="`delivered`, `failed` and `discarded` are final until it is replayed.")
    reason: str | None = Field(description="Why it is not delivered.")
    created_at: datetime
    next_attempt_at: datetime | None = Field(description="Null when there is none to come.")
    attempts: list[AttemptView] = Field(description="Oldest first.")

    @classmethod
    def of(cls, delivery: Delivery) -> "DeliveryView":
        return cls.model_validate(delivery, from_attributes=True)


class DeliveryPage(BaseModel):
    """Deliveries, newest first."""

    deliveries: list[DeliveryView]
    next_cursor: str | None = Field(description="For the next page; null at the end.")


class SampleEvent(BaseModel):
    """An event as a receiver gets it, with an id of its own, as Zapier wants samples."""

    id: str
    type: str
    timestamp: str
    data: dict[str, Any]


class VerificationBody(_Body):
    """What calls of a hook must carry beside its id."""

    kind: Verification = Field(
        description="`none`; `header`: a header with the secret; `hmac_sha256`: a header with the body's HMAC in hex or"
        " base64; `standard_webhooks`: the signature of Standard Webhooks."
    )
    header: str | None = Field(
        default=None, max_length=64, description="Name of the header.", examples=["X-Hook-Secret"]
    )
    secret: str | None = Field(default=None, max_length=MAX_SECRET_CHARS, description="Left out, one is made.")

    def check(self) -> Check:
        """The check to store. Raises InvalidInput."""
        return new_check(self.kind, self.header, self.secret)


_MAPPING = (
    'Field of `POST /v1/content` to a constant, or to `{"from": <JMESPath over the payload>, "default": <constant>}`.'
)
_EXAMPLE = "A payload as the platform sends it (an object or a list); the mapping must make a valid brief of it."


class HookBody(_Body):
    """An inbound hook."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Shop: product texts",
                    "mapping": {
                        "kind": "create",
                        "language": {"from": "lang", "default": "de"},
                        "instructions": {"from": "join(': ', ['Write a product text', product.title])"},
                        "keywords": {"from": "product.tags"},
                    },
                    "example": {"lang": "de", "product": {"title": "Bicycle bell", "tags": "bell, safety"}},
                }
            ]
        }
    )

    name: str = Field(min_length=1, max_length=100, description="Your own name for it.")
    mapping: dict[str, JsonValue] = Field(min_length=1, max_length=MAX_MAPPED_FIELDS, description=_MAPPING)
    example: dict[str, JsonValue] | PayloadItems = Field(description=_EXAMPLE)
    verification: VerificationBody | None = Field(
        default=None, description="How calls are verified; not at all unless it is said."
    )

    def check(self) -> Check:
        """The check to store. Raises InvalidInput."""
        return Check() if self.verification is None else self.verification.check()


class HookPatch(_Body):
    """What to change; what is left out, or null, stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    name: str | None = Field(default=None, min_length=1, max_length=100, description="Your own name for it.")
    enabled: bool | None = Field(default=None, description="False makes calls answer 404.")
    mapping: dict[str, JsonValue] | None = Field(
        default=None, min_length=1, max_length=MAX_MAPPED_FIELDS, description=_MAPPING
    )
    example: dict[str, JsonValue] | PayloadItems | None = Field(default=None, description=_EXAMPLE)
    verification: VerificationBody | None = Field(default=None, description="How calls are verified.")


class HookView(BaseModel):
    """An inbound hook."""

    id: str = Field(
        description="Part of its address: whoever knows it may call the hook.", examples=["hook_9bX7aVd5Ew"]
    )
    path: str = Field(description="Where the platform sends its payloads.", examples=["/v1/hooks/hook_9bX7aVd5Ew"])
    name: str
    enabled: bool
    mapping: dict[str, JsonValue]
    example: JsonValue
    verification: Verification
    header: str | None = Field(description="The header that `verification` looks at.")
    created_at: datetime

    @classmethod
    def of(cls, hook: Hook) -> "HookView":
        return cls(
            id=hook.id,
            path=f"/v1/hooks/{hook.id}",
            name=hook.name,
            enabled=hook.enabled,
            mapping=hook.mapping,
            example=hook.example,
            verification=hook.check.kind,
            header=hook.check.header,
            created_at=hook.created_at,
        )


class HookWithSecret(HookView):
    """An inbound hook, with its secret when one was just set."""

    secret: str | None = Field(description="Shown this once; null without verification, or when it was not changed.")

    @classmethod
    def showing(cls, hook: Hook, *, secret: bool) -> "HookWithSecret":
        """``secret`` tells whether to show it."""
        return cls(**HookView.of(hook).model_dump(), secret=hook.check.secret if secret else None)


class HookList(BaseModel):
    """The tenant's inbound hooks, oldest first."""

    hooks: list[HookView]


class PreviewBody(_Body):
    """A payload to try."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"payload": {"lang": "de", "product": {"title": "Bell"}}}]}
    )

    payload: dict[str, JsonValue] | PayloadItems | None = Field(
        default=None, description="As the platform sends it; left out, the hook's example is taken."
    )


class Preview(BaseModel):
    """The brief that a payload makes; nothing is generated."""

    brief: dict[str, JsonValue] = Field(description="The body of the `POST /v1/content` that the call amounts to.")
