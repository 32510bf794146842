"""Idempotency keys: which calls are one and the same.

A key is the caller's own (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-header), or made from the body for
callers that cannot send a header. It counts within one tenant and one route. Knows neither HTTP nor the store.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from agent.errors import InvalidInput

HEADER = "Idempotency-Key"
MODE_HEADER = "X-Idempotency-Mode"
AUTOMATIC = "auto"
"""As a key: the same as body mode."""
MAX_KEY_CHARS = 255


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What two calls must share to be one."""

    name: str
    """Hash of route and key: the same name, the same call."""
    fingerprint: str
    """Hash of the body: the same name with another fingerprint is a mistake of the caller."""
    ttl_s: float
    """How long the key is kept."""
    answered_ttl_s: float | None = None
    """How long it is kept once a caller got its answer; None changes nothing. A caller that has its answer does not
    retry, so the same body after that is a new wish."""


@dataclass(frozen=True, slots=True)
class KeyLife:
    """How long keys are kept."""

    ttl_s: float
    answered_body_ttl_s: float


def fingerprint_of(body: Any) -> str:
    """Hash of a JSON value: the order of an object's members does not matter."""
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def key_of_caller(header: str, route: str, fingerprint: str, life: KeyLife) -> IdempotencyKey:
    """The key that the caller chose.

    Raises:
        InvalidInput: see name_of_key.
    """
    return IdempotencyKey(name_of_key(header, route), fingerprint, life.ttl_s)


def name_of_key(key: str, route: str, field: str = HEADER) -> str:
    """The name of a caller's own key on a route; quotes of a structured field are not part of it.

    Raises:
        InvalidInput: of ``field``: it is empty, too long, or has other characters than printable ASCII.
    """
    key = key.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not 1 <= len(key) <= MAX_KEY_CHARS:
        raise InvalidInput(field, f"must have between 1 and {MAX_KEY_CHARS} characters, got {len(key)}")
    if not (key.isascii() and key.isprintable()):
        raise InvalidInput(field, "must be printable ASCII, such as a UUID, got other characters")
    return _name("key", route, key)


def key_of_body(route: str, fingerprint: str, life: KeyLife) -> IdempotencyKey:
    """The key of a call that is recognised by its body alone."""
    return IdempotencyKey(_name("body", route, fingerprint), fingerprint, life.ttl_s, life.answered_body_ttl_s)


def _name(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
