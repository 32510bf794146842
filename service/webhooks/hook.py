"""An inbound hook: whom it belongs to, how its calls are verified, and how a payload becomes a brief."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from pydantic import JsonValue


class Verification(StrEnum):
    """What a call must carry beside the hook's own unguessable id."""

    NONE = "none"
    HEADER = "header"
    """A header whose value is the secret."""
    HMAC_SHA256 = "hmac_sha256"
    """A header with the HMAC-SHA256 of the body, in hex or base64, with or without `sha256=` before it."""
    STANDARD_WEBHOOKS = "standard_webhooks"
    """The headers of Standard Webhooks; the secret begins with `whsec_`."""


@dataclass(frozen=True, slots=True)
class Check:
    """How a hook's calls are verified."""

    kind: Verification = Verification.NONE
    header: str | None = None
    secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Hook:
    """A stored mapping under an address of its own."""

    id: str = field(repr=False)
    """192 random bits: whoever knows it may call the hook."""
    tenant: str
    name: str
    enabled: bool
    mapping: dict[str, JsonValue]
    """Field of a brief to a constant, or to `{"from": <JMESPath>, "default": <constant>}`."""
    example: JsonValue
    """The payload that the mapping was checked with."""
    check: Check
    created_at: datetime
