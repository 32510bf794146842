"""Tenants and keys as they are kept: a tenant with its keys is one record, written as a whole."""

import secrets
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from agent.config import UNLIMITED, LimitSettings, TenantSettings


class Scope(StrEnum):
    """What a key may do. A key has a set of them; none implies another."""

    GENERATE = "generate"
    """Ask for content."""
    FEEDBACK = "feedback"
    """Rate and edit what was served."""
    READ = "read"
    """Read what is the tenant's: replies, jobs, logs."""
    ADMIN = "admin"
    """Manage what is the tenant's: its keys, endpoints and hooks."""


ALL_SCOPES = tuple(Scope)


class Origin(StrEnum):
    """Where a record's settings come from."""

    FILE = "file"
    """The configuration file, which it follows at every start."""
    ADMIN = "admin"
    """The admin API, which the file no longer overrides."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One API key. The key itself is nowhere."""

    id: str
    name: str
    hash: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    replaced_by: str | None = None
    """The key that a rotation made; this one ends at ``expires_at``."""
    limits: LimitSettings = UNLIMITED

    def is_valid(self, now: datetime) -> bool:
        """True when the key opens doors at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """One tenant with its keys. ``settings.key_hashes`` is empty: hashes stand with their keys."""

    settings: TenantSettings
    origin: Origin
    created_at: datetime
    updated_at: datetime
    keys: tuple[KeyRecord, ...] = ()
    revision: int = 0
    """Counts the writes of this record; 0 was never written."""

    @property
    def id(self) -> str:
        return self.settings.id

    def key(self, key_id: str) -> KeyRecord | None:
        """The key of that id, or None."""
        return next((key for key in self.keys if key.id == key_id), None)

    def with_key(self, changed: KeyRecord) -> "TenantRecord":
        """The record with this key added, or put in place of the one with its id."""
        others = tuple(key for key in self.keys if key.id != changed.id)
        if len(others) == len(self.keys):
            return replace(self, keys=(*self.keys, changed))
        return replace(self, keys=tuple(changed if key.id == changed.id else key for key in self.keys))


def new_key_id() -> str:
    """`key_` and 12 hex digits; names a key in answers and logs, and opens nothing."""
    return f"key_{secrets.token_hex(6)}"


def seeded_key_id(key_hash: str) -> str:
    """The id of a key whose hash stands in the configuration file: the same at every start."""
    return f"key_{key_hash.removeprefix('sha256:')[:12]}"
