"""Tenants on Redis or Valkey.

t:<tenant>:tenant          hash: record (JSON), revision
t:<tenant>:keys:used       hash: key id → seconds since 1970
node:tenants               set of tenants' ids
node:tenants:deleted       set of ids that an operator deleted
node:tenants:revision      grows with every write: whoever holds a copy sees that it is old
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

from agent.errors import Conflict
from service.store import Store, store_errors
from service.stored_record import RecordCodec
from service.tenancy.ports import Snapshot
from service.tenancy.record import TenantRecord

_IDS = "node:tenants"
_DELETED = "node:tenants:deleted"
_REVISION = "node:tenants:revision"

_WRITE = """
if (redis.call('HGET', KEYS[1], 'revision') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'record', ARGV[3], 'revision', ARGV[4])
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('SREM', KEYS[3], ARGV[2])
redis.call('INCR', KEYS[4])
return 1
"""
_DELETE = """
if (redis.call('HGET', KEYS[1], 'revision') or '0') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[5])
redis.call('SREM', KEYS[2], ARGV[2])
if ARGV[3] == '1' then redis.call('SADD', KEYS[3], ARGV[2]) end
redis.call('INCR', KEYS[4])
return 1
"""


class RedisTenantStore:
    """``service.tenancy.ports.TenantStore`` on the node's store."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._codec = RecordCodec(TenantRecord)
        self._write = self._redis.register_script(_WRITE)
        self._delete = self._redis.register_script(_DELETE)

    async def revision(self) -> int:
        """See TenantStore.revision."""
        with store_errors("tell whether tenants changed"):
            return int(await self._redis.get(_REVISION) or 0)

    async def load(self) -> Snapshot:
        """See TenantStore.load. The revision is read first, so a write in between is seen as news again."""
        revision = await self.revision()
        with store_errors("read the tenants"):
            ids = sorted(cast("set[str]", await self._redis.smembers(_IDS)))
            deleted = cast("set[str]", await self._redis.smembers(_DELETED))
            rows = [await self._redis.hget(_record_key(tenant), "record") for tenant in ids]
        records = tuple(self._codec.decode(row) for row in rows if row is not None)
        return Snapshot(revision, records, frozenset(deleted))

    async def save(self, record: TenantRecord) -> TenantRecord:
        """See TenantStore.save."""
        written = replace(record, revision=record.revision + 1)
        with store_errors("write a tenant"):
            done = await self._write(
                keys=[_record_key(record.id), _IDS, _DELETED, _REVISION],
                args=[record.revision, record.id, self._codec.encode(written), written.revision],
            )
        _require(done, record)
        return written

    async def delete(self, record: TenantRecord, *, by_operator: bool) -> None:
        """See TenantStore.delete."""
        with store_errors("delete a tenant"):
            done = await self._delete(
                keys=[_record_key(record.id), _IDS, _DELETED, _REVISION, _use_key(record.id)],
                args=[record.revision, record.id, int(by_operator)],
            )
        _require(done, record)

    async def note_use(self, tenant: str, used_at: Mapping[str, datetime]) -> None:
        """See TenantStore.note_use."""
        with store_errors("note a key's use"):
            await self._redis.hset(
                _use_key(tenant), mapping={key: int(time.timestamp()) for key, time in used_at.items()}
            )

    async def last_used(self, tenant: str) -> dict[str, datetime]:
        """See TenantStore.last_used."""
        with store_errors("read the use of keys"):
            rows = cast("dict[str, str]", await self._redis.hgetall(_use_key(tenant)))
        return {key: datetime.fromtimestamp(int(seconds), UTC) for key, seconds in rows.items()}


def _record_key(tenant: str) -> str:
    return f"t:{tenant}:tenant"


def _use_key(tenant: str) -> str:
    return f"t:{tenant}:keys:used"


def _require(done: object, record: TenantRecord) -> None:
    if done != 1:
        raise Conflict(f"tenant {record.id} was changed by somebody else meanwhile; read it again")
