"""The audit log: every act of an operator or of a tenant's admin key that changed something. Only ever appended to.

    node:audit      stream of entries (JSON)

An entry says who (a key's id), what, when, and digests of what was there before and after; it quotes no content.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, cast

from agent.errors import InvalidInput
from service.store import Store, store_errors
from service.stored_record import RecordCodec

_STREAM = "node:audit"


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One act."""

    at: datetime
    actor: str
    """Id of the key: `admin_…` for the node's own, `key_…` for a tenant's."""
    tenant: str | None
    """Whose key it was; None for the node's own."""
    action: str
    """The operation's id in the OpenAPI document."""
    path: str
    status: int
    """What it was answered with."""
    request_id: str
    before: str | None = None
    """Digest of what was there; None when nothing was, or it is not known."""
    after: str | None = None
    id: str = ""
    """Set by the log; grows with time."""


class AuditLog(Protocol):
    """Where acts are kept. Raises StoreError."""

    async def append(self, entry: AuditEntry) -> None:
        """Keep an entry."""
        ...

    async def newest(self, limit: int, *, before: str | None = None) -> Sequence[AuditEntry]:
        """Up to ``limit`` entries, newest first; ``before`` is the id of the last one seen.

        Raises:
            InvalidInput: ``before`` is no id of an entry.
        """
        ...


class RedisAudit:
    """``AuditLog`` on the node's store."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._codec = RecordCodec(AuditEntry)

    async def append(self, entry: AuditEntry) -> None:
        """See AuditLog.append."""
        with store_errors("keep an audit entry"):
            await self._redis.xadd(_STREAM, {"entry": self._codec.encode(entry)})

    async def newest(self, limit: int, *, before: str | None = None) -> Sequence[AuditEntry]:
        """See AuditLog.newest."""
        end = "+" if before is None else f"({_entry_id(before)}"
        with store_errors("read the audit log"):
            rows = await self._redis.xrevrange(_STREAM, max=end, min="-", count=limit)
        entries = cast("list[tuple[str, dict[str, str]]]", rows)
        return [replace(self._codec.decode(fields["entry"]), id=entry_id) for entry_id, fields in entries]


class MemoryAudit:
    """``AuditLog`` in memory."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []

    async def append(self, entry: AuditEntry) -> None:
        """See AuditLog.append."""
        self.entries.append(replace(entry, id=f"{len(self.entries) + 1}-0"))

    async def newest(self, limit: int, *, before: str | None = None) -> Sequence[AuditEntry]:
        """See AuditLog.newest."""
        seen = len(self.entries) + 1 if before is None else int(_entry_id(before).partition("-")[0])
        return [*reversed(self.entries[: max(seen - 1, 0)])][:limit]


def _entry_id(cursor: str) -> str:
    numbers = cursor.split("-")
    if len(numbers) != 2 or not all(map(_is_entry_number, numbers)):
        raise InvalidInput("cursor", f"must be a `next_cursor` of an earlier answer, got {cursor[:40]!r}")
    return cursor


def _is_entry_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 20 and int(text) < 2**64


def digest(text: str) -> str:
    """`sha256:` and the hex digest of a text, for an entry's before and after."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
