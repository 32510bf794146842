"""Tenants on a real store."""

from datetime import UTC, datetime

import pytest

from agent.config import LanguageSettings, LimitSettings, TenantSettings
from agent.errors import Conflict
from service.store import Store
from service.tenancy.audit import AuditEntry, RedisAudit
from service.tenancy.record import ALL_SCOPES, KeyRecord, Origin, TenantRecord
from service.tenancy.store import RedisTenantStore
from service.tenancy.usage import RedisUsageStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
KEY = KeyRecord("key_1", "Make", "sha256:" + "a" * 64, ALL_SCOPES, NOON, limits=LimitSettings(tokens_per_day=7))
ACME = TenantRecord(
    TenantSettings(id="acme", languages={"de": LanguageSettings(address="formal")}, weight=2.0),
    Origin.ADMIN,
    NOON,
    NOON,
    (KEY,),
)


async def test_a_record_comes_back_as_it_was_written(any_store: Store) -> None:
    """With the next revision; the whole moves on by one with each write."""
    tenants = RedisTenantStore(any_store)
    assert await tenants.revision() == 0
    written = await tenants.save(ACME)
    assert written.revision == 1
    snapshot = await tenants.load()
    assert snapshot.records == (written,)
    assert snapshot.revision == await tenants.revision() == 1


async def test_of_two_writers_the_slower_one_is_told(any_store: Store) -> None:
    """Both read revision 1; the second write would undo the first."""
    tenants = RedisTenantStore(any_store)
    read = await tenants.save(ACME)
    await tenants.save(read)
    with pytest.raises(Conflict, match="tenant acme was changed by somebody else"):
        await tenants.save(read)
    with pytest.raises(Conflict):
        await tenants.delete(read, by_operator=True)
    with pytest.raises(Conflict):
        await tenants.save(ACME)


async def test_a_deleted_tenant_leaves_nothing_but_its_id(any_store: Store) -> None:
    """Neither record nor uses; made again, its id is no longer among the deleted."""
    tenants = RedisTenantStore(any_store)
    written = await tenants.save(ACME)
    await tenants.note_use("acme", {"key_1": NOON})
    await tenants.delete(written, by_operator=True)
    snapshot = await tenants.load()
    assert (snapshot.records, snapshot.deleted) == ((), frozenset({"acme"}))
    assert [key async for key in any_store.redis.scan_iter("t:acme:*")] == []
    await tenants.save(ACME)
    assert (await tenants.load()).deleted == frozenset()


async def test_uses_are_kept_to_the_second(any_store: Store) -> None:
    """By key; a key that was never used is absent."""
    tenants = RedisTenantStore(any_store)
    await tenants.note_use("acme", {"key_1": NOON.replace(microsecond=999_999)})
    assert await tenants.last_used("acme") == {"key_1": NOON}


async def test_every_key_names_its_tenant_or_the_node(any_store: Store) -> None:
    """What tenants, days and the audit log keep stands under `t:<tenant>:` or `node:`."""
    tenants = RedisTenantStore(any_store)
    await tenants.save(ACME)
    await tenants.note_use("acme", {"key_1": NOON})
    await RedisUsageStore(any_store).add("acme", NOON.date(), {"tokens": 3})
    await RedisAudit(any_store).append(AuditEntry(NOON, "key_1", "acme", "create_own_key", "/v1/keys", 201, "req_1"))
    keys = sorted([key async for key in any_store.redis.scan_iter("*")])
    assert [key for key in keys if not key.startswith(("t:acme:", "node:"))] == []
    assert {"t:acme:tenant", "t:acme:keys:used", "t:acme:usage:2026-03-01", "node:audit"} <= set(keys)
