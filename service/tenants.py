"""Who may ask, in memory: tenants by API key, with their languages. Knows hashes of keys, never keys.

    service.tenancy.registry ──use──► Tenants ──► every request (no store call), the writer, the panel, tuning

A new set of records replaces the old one between two awaits, so a request sees either all of a change or none of it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.config import LanguageSettings, TenantSettings
from agent.errors import InvalidBrief
from agent.language import primary_code
from service.fair_queue import Share
from service.secrets import hash_key
from service.tenancy.caller import Caller
from service.tenancy.record import ALL_SCOPES, KeyRecord, Origin, TenantRecord, seeded_key_id

Listener = Callable[[Sequence[TenantSettings]], None]


@dataclass(frozen=True, slots=True)
class _Holder:
    caller: Caller
    key: KeyRecord


class Tenants:
    """The node's tenants. Ids and key hashes are unique (the registry sees to that)."""

    def __init__(
        self,
        records: Iterable[TenantRecord] = (),
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._listeners: list[Listener] = []
        self._used_at: dict[tuple[str, str], datetime] = {}
        self.use(records)

    @classmethod
    def of(cls, settings: Iterable[TenantSettings]) -> "Tenants":
        """Tenants straight from a configuration, every key with every scope."""
        return cls(seeded(tenant, datetime.now(UTC)) for tenant in settings)

    def use(self, records: Iterable[TenantRecord]) -> None:
        """Take these records instead of the present ones, and tell the listeners."""
        by_id: dict[str, TenantRecord] = {}
        by_hash: dict[str, _Holder] = {}
        for record in records:
            by_id[record.id] = record
            for key in record.keys:
                caller = Caller(record.settings, key.id, frozenset(key.scopes), key.limits)
                by_hash[key.hash] = _Holder(caller, key)
        self._by_id, self._by_hash = by_id, by_hash
        self._languages = {
            record.id: {primary_code(code): settings for code, settings in record.settings.languages.items()}
            for record in by_id.values()
        }
        for listener in self._listeners:
            listener(self.all)

    def follow(self, listener: Listener) -> None:
        """Call ``listener`` with every tenant's settings now and after each change. It must not raise."""
        self._listeners.append(listener)
        listener(self.all)

    def authenticate(self, key: str) -> Caller | None:
        """Who holds ``key``, or None. Notes the use.

        Keys are compared by hash, so the time that a look-up takes says nothing about any key.
        """
        holder = self._by_hash.get(hash_key(key))
        if holder is None:
            return None
        now = self._now()
        if not holder.key.is_valid(now):
            return None
        self._used_at[holder.caller.tenant.id, holder.key.id] = now
        return holder.caller

    def take_uses(self) -> dict[str, dict[str, datetime]]:
        """Keys used since the last call: tenant to key id to the last time."""
        uses: dict[str, dict[str, datetime]] = {}
        for (tenant, key_id), used_at in self._used_at.items():
            uses.setdefault(tenant, {})[key_id] = used_at
        self._used_at.clear()
        return uses

    def record(self, tenant: str) -> TenantRecord | None:
        """The record of that id, or None."""
        return self._by_id.get(tenant)

    @property
    def records(self) -> tuple[TenantRecord, ...]:
        """Every record, sorted by id."""
        return tuple(self._by_id[tenant] for tenant in sorted(self._by_id))

    @property
    def all(self) -> tuple[TenantSettings, ...]:
        """Every tenant's settings, sorted by id."""
        return tuple(record.settings for record in self.records)

    def get(self, tenant: str) -> TenantSettings | None:
        """The settings of that id, or None."""
        record = self._by_id.get(tenant)
        return None if record is None else record.settings

    def share(self, tenant: str) -> Share:
        """What the tenant is given of a busy engine; the default for one that is gone."""
        record = self._by_id.get(tenant)
        return Share() if record is None else Share(record.settings.weight, record.settings.max_queued)

    def settings(self, tenant: str, language: str) -> LanguageSettings | None:
        """A tenant's settings of a language; None when it has no such tenant or language."""
        return self._languages.get(tenant, {}).get(primary_code(language))

    def find(self, tenant: str, language: str) -> LanguageSettings:
        """See agent.writer.LanguageLookup.find."""
        settings = self.settings(tenant, language)
        if settings is None:
            known = ", ".join(sorted(self._languages.get(tenant, {}))) or "none"
            raise InvalidBrief("language", f"must be a language of the tenant ({known}), got {language!r}")
        return settings

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language that some tenant may ask for, sorted."""
        return tuple(sorted({language for tenant in self.all for language in tenant.languages}))


def seeded(settings: TenantSettings, now: datetime) -> TenantRecord:
    """The record of a tenant as the configuration file has it: every key with every scope."""
    keys = tuple(
        KeyRecord(seeded_key_id(key_hash), f"file {number}", key_hash, ALL_SCOPES, now)
        for number, key_hash in enumerate(settings.key_hashes, start=1)
    )
    bare = settings.model_copy(update={"key_hashes": ()})
    return TenantRecord(bare, Origin.FILE, now, now, keys)
