"""The node's keys as an authenticator."""

from agent.config import LanguageSettings, TenantSettings
from service.http.keys import NodeKeys
from service.secrets import AdminKey, hash_key
from service.tenants import Tenants


def test_each_key_opens_its_own_door() -> None:
    """A tenant's key is not the admin key, the admin key is no tenant's, and a hash is no key."""
    acme = TenantSettings(id="acme", key_hashes=(hash_key("k1"),), languages={"de": LanguageSettings()})
    keys = NodeKeys(Tenants.of([acme]), AdminKey(hash=hash_key("k2")))
    caller = keys.caller("k1")
    assert caller is not None
    assert caller.tenant.id == "acme"
    assert keys.caller("k2") is None
    assert keys.caller(hash_key("k1")) is None
    assert keys.is_admin("k2")
    assert not keys.is_admin("k1")
