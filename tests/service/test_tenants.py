"""Tenants by API key."""

from agent.config import LanguageSettings, TenantSettings
from service.secrets import hash_key
from service.tenants import Tenants

ACME = TenantSettings(
    id="acme",
    key_hashes=(hash_key("old"), hash_key("new")),
    languages={"pl": LanguageSettings(address="formal"), "de": LanguageSettings()},
)
ZETA = TenantSettings(id="zeta", key_hashes=(hash_key("other"),), languages={"fr": LanguageSettings()})
TENANTS = Tenants.of((ACME, ZETA))


def test_key_finds_its_tenant() -> None:
    """Each of a tenant's keys authenticates it, so that keys can be rotated; any other text authenticates nobody."""
    for key, tenant in (("old", "acme"), ("new", "acme"), ("other", "zeta")):
        caller = TENANTS.authenticate(key)
        assert caller is not None
        assert caller.tenant.id == tenant
    assert TENANTS.authenticate("OLD") is None
    assert TENANTS.authenticate("") is None


def test_hash_is_not_a_key() -> None:
    """Whoever reads the configuration cannot call the API with a hash from it."""
    assert TENANTS.authenticate(hash_key("old")) is None


def test_key_with_a_lone_surrogate_is_merely_unknown() -> None:
    """A header that is not valid text authenticates nobody and raises nothing."""
    assert TENANTS.authenticate("\udcff") is None


def test_settings_are_those_of_the_tenant_and_language() -> None:
    """A language's settings are the tenant's own; None stands for a language that it may not ask for."""
    settings = TENANTS.settings("acme", "pl")
    assert settings is not None
    assert settings.address == "formal"
    assert TENANTS.settings("acme", "fr") is None
    assert TENANTS.settings("nobody", "pl") is None
    assert TENANTS.get("zeta") == ZETA.model_copy(update={"key_hashes": ()})


def test_languages_are_those_of_all_tenants() -> None:
    """The node's languages are the union of its tenants'."""
    assert TENANTS.languages == ("de", "fr", "pl")
