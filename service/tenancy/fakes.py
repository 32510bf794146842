"""A tenant store in memory, for tests and for a node of fakes."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from agent.errors import Conflict, StoreError
from service.tenancy.ports import Snapshot
from service.tenancy.record import TenantRecord


class MemoryTenantStore:
    """``service.tenancy.ports.TenantStore``; ``failure`` is raised instead of an answer while it is set."""

    def __init__(self, records: Iterable[TenantRecord] = ()) -> None:
        self._records = {record.id: replace(record, revision=max(record.revision, 1)) for record in records}
        self._deleted: set[str] = set()
        self._used: dict[str, dict[str, datetime]] = {}
        self._revision = len(self._records)
        self.failure: StoreError | None = None

    async def revision(self) -> int:
        self._check()
        return self._revision

    async def load(self) -> Snapshot:
        self._check()
        records = tuple(self._records[tenant] for tenant in sorted(self._records))
        return Snapshot(self._revision, records, frozenset(self._deleted))

    async def save(self, record: TenantRecord) -> TenantRecord:
        self._check(record)
        written = replace(record, revision=record.revision + 1)
        self._records[record.id] = written
        self._deleted.discard(record.id)
        self._revision += 1
        return written

    async def delete(self, record: TenantRecord, *, by_operator: bool) -> None:
        self._check(record)
        del self._records[record.id]
        self._used.pop(record.id, None)
        if by_operator:
            self._deleted.add(record.id)
        self._revision += 1

    async def note_use(self, tenant: str, used_at: Mapping[str, datetime]) -> None:
        self._check()
        self._used.setdefault(tenant, {}).update(used_at)

    async def last_used(self, tenant: str) -> dict[str, datetime]:
        self._check()
        return dict(self._used.get(tenant, {}))

    def _check(self, record: TenantRecord | None = None) -> None:
        if self.failure is not None:
            raise self.failure
        known = self._records.get(record.id) if record is not None else None
        if record is not None and record.revision != (known.revision if known is not None else 0):
            raise Conflict(f"tenant {record.id} was changed by somebody else meanwhile; read it again")
