"""Who may ask: tenants by API key, with their languages. Knows hashes of keys, never keys."""

from collections.abc import Sequence

from agent.config import LanguageSettings, TenantSettings
from service.secrets import hash_key


class Tenants:
    """The node's tenants. Ids and key hashes are unique (the configuration's loader checks that)."""

    def __init__(self, settings: Sequence[TenantSettings]) -> None:
        self._by_id = {tenant.id: tenant for tenant in settings}
        self._by_key_hash = {key_hash: tenant for tenant in settings for key_hash in tenant.key_hashes}

    def authenticate(self, key: str) -> TenantSettings | None:
        """The tenant that holds ``key``, or None.

        Keys are compared by hash, so the time that a look-up takes says nothing about any key.
        """
        return self._by_key_hash.get(hash_key(key))

    def get(self, tenant: str) -> TenantSettings | None:
        """The tenant of that id, or None."""
        return self._by_id.get(tenant)

    def settings(self, tenant: str, language: str) -> LanguageSettings | None:
        """A tenant's settings of a language; None when it has no such tenant or language."""
        known = self._by_id.get(tenant)
        return None if known is None else known.languages.get(language)

    @property
    def languages(self) -> tuple[str, ...]:
        """Every language that some tenant may ask for, sorted."""
        return tuple(sorted({language for tenant in self._by_id.values() for language in tenant.languages}))
