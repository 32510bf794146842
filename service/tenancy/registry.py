"""The tenants' registry: the one writer of tenants and keys in this process.

    file ─seed─► store ◄─write─ registry ─use─► Tenants (memory, read by every request)
                   └──── revision, polled ────────┘

A change is in force here when the call returns, and within a second in every other process on the same store. An
embedded store has no other process, so its revision is not asked for.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import structlog

from agent.config import UNLIMITED, LimitSettings, TenantSettings
from agent.errors import Conflict, InvalidConfig, InvalidInput, NotFound, StoreError
from service.secrets import new_key
from service.tenancy.ports import PinRules, Snapshot, TenantStore
from service.tenancy.record import KeyRecord, Origin, Scope, TenantRecord, new_key_id, seeded_key_id
from service.tenancy.rules import TenantRules
from service.tenants import Tenants, seeded

log = structlog.get_logger(__name__)

_POLL_S = 1.0
_NOTE_S = 60.0
"""Between two writes of when keys were used."""
MAX_KEYS = 100
"""Keys that one tenant may have, those that ended included."""


@dataclass(frozen=True, slots=True)
class KeyOrder:
    """A key that is to be made."""

    name: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None = None
    limits: LimitSettings = UNLIMITED


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key that was just made. The plain text exists only here."""

    record: KeyRecord
    plain: str = field(repr=False)


class TenantRegistry:
    """Reads and writes tenants. Its writes raise StoreError, and Conflict when another process was faster."""

    def __init__(
        self,
        store: TenantStore,
        tenants: Tenants,
        rules: TenantRules,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pins: PinRules | None = None
        self._store, self._tenants, self._rules, self._now = store, tenants, rules, now
        self._revision: int | None = None
        self._deleted: frozenset[str] = frozenset()
        self._writing = asyncio.Lock()
        self._sole_user = False

    def hold_pins_to(self, pins: PinRules) -> None:
        """Refuse settings from now on whose pins break these rules."""
        self._pins = pins

    async def open(self, from_file: Sequence[TenantSettings], *, sole_user: bool) -> None:
        """Bring the store in line with the configuration file, then take what it holds.

        A tenant follows the file until its settings are changed through the API; from then on the store wins. One that
        was deleted through the API does not come back from the file. With ``sole_user`` (an embedded store) a tenant
        that left the file is removed; on a shared store it stays, since another node's file may have it.

        Raises:
            InvalidConfig: a key of the file belongs to another tenant in the store.
        """
        self._sole_user = sole_user
        snapshot = await self._store.load()
        records = {record.id: record for record in snapshot.records}
        _refuse_foreign_keys(from_file, snapshot)
        for settings in from_file:
            self._warn(settings)
            if settings.id in snapshot.deleted:
                log.warning("tenant_in_file_was_deleted", tenant=settings.id)
            else:
                await self._follow_file(settings, records.get(settings.id))
        gone = records.keys() - {settings.id for settings in from_file}
        for record in (records[tenant] for tenant in sorted(gone)):
            if record.origin is Origin.FILE:
                await self._leave_file(record, sole_user=sole_user)
        await self.refresh()

    async def run(self) -> None:
        """Follow the store and note when keys were used, forever."""
        loop = asyncio.get_running_loop()
        note_s = loop.time() + _NOTE_S
        while True:
            await asyncio.sleep(_NOTE_S if self._sole_user else _POLL_S)
            try:
                if not self._sole_user and await self._store.revision() != self._revision:
                    await self.refresh()
                if loop.time() >= note_s:
                    note_s += _NOTE_S
                    await self.note_uses()
            except StoreError as error:
                log.warning("tenants_not_refreshed", reason=str(error))

    async def refresh(self) -> None:
        """Take what the store holds now."""
        snapshot = await self._store.load()
        self._tenants.use(snapshot.records)
        self._revision, self._deleted = snapshot.revision, snapshot.deleted

    async def note_uses(self) -> None:
        """Write when keys were used since the last call."""
        for tenant, used_at in self._tenants.take_uses().items():
            if self._tenants.record(tenant) is not None:
                await self._store.note_use(tenant, used_at)

    def list(self) -> tuple[TenantRecord, ...]:
        """Every tenant, sorted by id."""
        return self._tenants.records

    def get(self, tenant: str) -> TenantRecord:
        """Raises NotFound."""
        record = self._tenants.record(tenant)
        if record is None:
            raise NotFound(f"there is no tenant {tenant}")
        return record

    def warnings(self, settings: TenantSettings) -> tuple[str, ...]:
        """What is accepted in a tenant's settings and odd."""
        return self._rules.warnings(settings)

    async def last_used(self, tenant: str) -> dict[str, datetime]:
        """When the tenant's keys were last used, by key id; up to a minute old."""
        return await self._store.last_used(self.get(tenant).id)

    async def create(self, settings: TenantSettings) -> TenantRecord:
        """Add a tenant, without keys.

        Raises:
            InvalidInput: the settings break a rule.
            Conflict: there is one of that id.
        """
        self._rules.check(settings)
        self._warn(settings)
        async with self._writing:
            await self.refresh()
            if self._tenants.record(settings.id) is not None:
                raise Conflict(f"there is a tenant {settings.id} already", blocking_id=settings.id)
            await self._check_pins(settings)
            now = self._now()
            return await self._save(TenantRecord(settings, Origin.ADMIN, now, now))

    async def replace(self, settings: TenantSettings) -> TenantRecord:
        """Give a tenant other settings; its keys stay.

        Raises:
            InvalidInput: the settings break a rule.
            NotFound: there is no such tenant.
        """
        self._rules.check(settings)
        self._warn(settings)
        async with self._writing:
            await self.refresh()
            record = self.get(settings.id)
            await self._check_pins(settings)
            return await self._save(replace(record, settings=settings, origin=Origin.ADMIN))

    async def delete(self, tenant: str) -> None:
        """Remove a tenant and its keys. What it wrote stays in the journal, and is not drawn from. Raises NotFound."""
        async with self._writing:
            await self.refresh()
            await self._store.delete(self.get(tenant), by_operator=True)
            await self.refresh()

    async def add_key(self, tenant: str, order: KeyOrder) -> IssuedKey:
        """Make a key.

        Raises:
            NotFound: there is no such tenant.
            InvalidInput: it expires in the past, or the tenant has too many keys.
        """
        async with self._writing:
            await self.refresh()
            record = self.get(tenant)
            if order.expires_at is not None and order.expires_at <= self._now():
                raise InvalidInput("expires_at", f"must lie in the future, got {order.expires_at.isoformat()}")
            issued = self._issue(record, order)
            await self._save(record.with_key(issued.record))
            return issued

    async def rotate_key(self, tenant: str, key_id: str, overlap_s: float) -> IssuedKey:
        """Make a key like this one, which ends after ``overlap_s`` seconds (at its own expiry, if that is earlier).

        Raises:
            NotFound: there is no such tenant or key.
            Conflict: the key has ended, or was rotated already.
        """
        async with self._writing:
            await self.refresh()
            record = self.get(tenant)
            old = self._valid_key(record, key_id)
            if old.replaced_by is not None:
                raise Conflict(f"{key_id} was rotated already; {old.replaced_by} took its place", old.replaced_by)
            issued = self._issue(record, KeyOrder(old.name, old.scopes, old.expires_at, old.limits))
            ends_at = self._now() + timedelta(seconds=overlap_s)
            ending = replace(
                old,
                expires_at=min(ends_at, old.expires_at) if old.expires_at is not None else ends_at,
                replaced_by=issued.record.id,
            )
            await self._save(record.with_key(ending).with_key(issued.record))
            return issued

    async def revoke_key(self, tenant: str, key_id: str) -> KeyRecord:
        """End a key at once; revoking twice changes nothing. Raises NotFound."""
        async with self._writing:
            await self.refresh()
            record = self.get(tenant)
            key = _key(record, key_id)
            if key.revoked_at is None:
                key = replace(key, revoked_at=self._now())
                await self._save(record.with_key(key))
            return key

    def _warn(self, settings: TenantSettings) -> None:
        for warning in self.warnings(settings):
            log.warning("tenant_setting_odd", tenant=settings.id, warning=warning)

    async def _check_pins(self, settings: TenantSettings) -> None:
        """Raises InvalidInput."""
        if self._pins is not None:
            others = [record.settings for record in self._tenants.records if record.id != settings.id]
            await self._pins.check(settings, others)

    async def _save(self, record: TenantRecord) -> TenantRecord:
        written = await self._store.save(replace(record, updated_at=self._now()))
        await self.refresh()
        return written

    def _issue(self, record: TenantRecord, order: KeyOrder) -> IssuedKey:
        if len(record.keys) >= MAX_KEYS:
            raise InvalidInput("keys", f"must be at most {MAX_KEYS} for one tenant, got one more")
        made = new_key(record.id)
        scopes = tuple(scope for scope in Scope if scope in order.scopes)
        key = KeyRecord(
            new_key_id(), order.name, made.hash, scopes, self._now(), expires_at=order.expires_at, limits=order.limits
        )
        return IssuedKey(key, made.plain)

    def _valid_key(self, record: TenantRecord, key_id: str) -> KeyRecord:
        key = _key(record, key_id)
        if not key.is_valid(self._now()):
            raise Conflict(f"{key_id} has ended; make a new key instead", key_id)
        return key

    async def _follow_file(self, settings: TenantSettings, record: TenantRecord | None) -> None:
        from_file = seeded(settings, self._now())
        if record is None:
            await self._store.save(from_file)
        elif record.origin is Origin.ADMIN:
            if record.settings != from_file.settings:
                log.warning("tenant_in_file_ignored", tenant=record.id, reason="changed through the admin API")
        elif (followed := _merged(record, from_file)) != record:
            await self._store.save(replace(followed, updated_at=self._now()))

    async def _leave_file(self, record: TenantRecord, *, sole_user: bool) -> None:
        if sole_user:
            await self._store.delete(record, by_operator=False)
        log.warning("tenant_not_in_file", tenant=record.id, removed=sole_user)


def _merged(record: TenantRecord, from_file: TenantRecord) -> TenantRecord:
    """A record with the file's settings and keys; keys that the API made stay, and so does what it did to a key."""
    in_file = {key.id for key in from_file.keys}
    kept = tuple(key for key in record.keys if key.id in in_file or key.id != seeded_key_id(key.hash))
    known = {key.id for key in kept}
    fresh = tuple(key for key in from_file.keys if key.id not in known)
    return replace(record, settings=from_file.settings, keys=(*kept, *fresh))


def _refuse_foreign_keys(from_file: Sequence[TenantSettings], snapshot: Snapshot) -> None:
    owners = {key.hash: record.id for record in snapshot.records for key in record.keys}
    for settings in from_file:
        for key_hash in settings.key_hashes:
            owner = owners.get(key_hash, settings.id)
            if owner != settings.id:
                raise InvalidConfig(
                    "tenants", f"{settings.id} has a key_hash that belongs to tenant {owner} in the store"
                )


def _key(record: TenantRecord, key_id: str) -> KeyRecord:
    key = record.key(key_id)
    if key is None:
        raise NotFound(f"tenant {record.id} has no key {key_id}")
    return key
