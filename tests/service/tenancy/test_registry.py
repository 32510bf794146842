"""Tenants and keys as the registry keeps them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import structlog

from agent.config import LanguageSettings, LimitSettings, TenantSettings
from agent.errors import Conflict, InvalidConfig, InvalidInput, NotFound, StoreError
from service.secrets import hash_key
from service.tenancy.fakes import MemoryTenantStore
from service.tenancy.record import ALL_SCOPES, Origin, Scope
from service.tenancy.registry import MAX_KEYS, KeyOrder, TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenants import Tenants

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
RULES = TenantRules(labels={"de", "en", "pl"}, parts={"fidelity", "length"})
READER = KeyOrder("Make", (Scope.READ, Scope.GENERATE))


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Desk:
    """A registry on a memory store, with its clock."""

    def __init__(self, store: MemoryTenantStore | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store = store or MemoryTenantStore()
        self.tenants = Tenants(now=self.clock)
        self.registry = TenantRegistry(self.store, self.tenants, RULES, now=self.clock)


def acme(*keys: str, **languages: LanguageSettings) -> TenantSettings:
    return TenantSettings(
        id="acme", key_hashes=tuple(map(hash_key, keys)), languages=languages or {"de": LanguageSettings()}
    )


async def test_a_tenant_of_the_file_is_in_the_store_and_its_key_opens() -> None:
    """The seeded key has every scope; its hash stands with the key and no longer in the settings."""
    desk = Desk()
    await desk.registry.open([acme("k1")], sole_user=True)
    caller = desk.tenants.authenticate("k1")
    assert caller is not None
    assert (caller.tenant.id, caller.tenant.key_hashes, caller.scopes) == ("acme", (), frozenset(ALL_SCOPES))
    assert [record.origin for record in (await desk.store.load()).records] == [Origin.FILE]


async def test_an_unedited_tenant_follows_the_file() -> None:
    """Settings and keys of the file are taken over at the next start: k1 is out, k2 is in."""
    desk = Desk()
    await desk.registry.open([acme("k1")], sole_user=True)
    later = Desk(desk.store)
    await later.registry.open([acme("k2", pl=LanguageSettings())], sole_user=True)
    assert later.tenants.authenticate("k1") is None
    assert later.tenants.authenticate("k2") is not None
    assert later.tenants.languages == ("pl",)


async def test_a_tenant_changed_through_the_api_wins_over_the_file() -> None:
    """The file is ignored with a warning, until somebody deletes the tenant."""
    desk = Desk()
    await desk.registry.open([acme("k1")], sole_user=True)
    await desk.registry.replace(acme(en=LanguageSettings()))
    later = Desk(desk.store)
    with structlog.testing.capture_logs() as logs:
        await later.registry.open([acme("k1", pl=LanguageSettings())], sole_user=True)
    assert later.tenants.languages == ("en",)
    assert [line["event"] for line in logs] == ["tenant_in_file_ignored"]


async def test_a_tenant_deleted_through_the_api_stays_deleted() -> None:
    """The file does not bring it back; making it again does."""
    desk = Desk()
    await desk.registry.open([acme("k1")], sole_user=True)
    await desk.registry.delete("acme")
    assert desk.tenants.authenticate("k1") is None
    later = Desk(desk.store)
    await later.registry.open([acme("k1")], sole_user=True)
    assert later.registry.list() == ()
    await later.registry.create(acme())
    assert [record.id for record in later.registry.list()] == ["acme"]


async def test_a_tenant_that_left_the_file_goes_with_an_embedded_store_only() -> None:
    """On a shared store another node's file may have it."""
    for sole_user, left in ((False, ["acme"]), (True, [])):
        desk = Desk()
        await desk.registry.open([acme("k1")], sole_user=True)
        later = Desk(desk.store)
        await later.registry.open([], sole_user=sole_user)
        assert [record.id for record in later.registry.list()] == left


async def test_a_revoked_key_of_the_file_stays_revoked() -> None:
    """A restart must not undo a revocation."""
    desk = Desk()
    await desk.registry.open([acme("k1")], sole_user=True)
    (key,) = desk.registry.get("acme").keys
    await desk.registry.revoke_key("acme", key.id)
    later = Desk(desk.store)
    await later.registry.open([acme("k1")], sole_user=True)
    assert later.tenants.authenticate("k1") is None


async def test_one_key_cannot_belong_to_two_tenants() -> None:
    """A hash of the file that another tenant holds in the store is refused before anything is written."""
    desk = Desk()
    await desk.registry.open([acme("k1")], sole_user=False)
    other = TenantSettings(id="zeta", key_hashes=(hash_key("k1"),), languages={"de": LanguageSettings()})
    with pytest.raises(InvalidConfig, match="zeta has a key_hash that belongs to tenant acme"):
        await Desk(desk.store).registry.open([other], sole_user=False)


@pytest.mark.parametrize(
    ("settings", "field", "message"),
    [
        (acme(xx=LanguageSettings()), "languages.xx", "must be a language that the detector knows, got 'xx'"),
        (
            acme(de=LanguageSettings(reward_weights={"lenght": 1.0})),
            "languages.de.reward_weights.lenght",
            "unknown reward part; did you mean languages.de.reward_weights.length?",
        ),
        (
            acme(de=LanguageSettings(min_words=9, max_words=3)),
            "languages.de.min_words",
            "must not exceed max_words (3), got 9",
        ),
        (acme("k1"), "key_hashes", "must be empty here; keys are made at /admin/tenants/{id}/keys"),
    ],
)
async def test_settings_that_break_a_rule_are_refused_by_field(
    settings: TenantSettings, field: str, message: str
) -> None:
    """At write, so that no request meets them; nothing is stored."""
    desk = Desk()
    with pytest.raises(InvalidInput) as caught:
        await desk.registry.create(settings)
    assert (caught.value.field, caught.value.message) == (field, message)
    assert (await desk.store.load()).records == ()


async def test_a_second_tenant_of_one_id_is_a_conflict() -> None:
    """Ids are chosen by operators and never taken over."""
    desk = Desk()
    await desk.registry.create(acme())
    with pytest.raises(Conflict, match="there is a tenant acme already"):
        await desk.registry.create(acme())


async def test_a_new_key_opens_with_its_scopes_and_limits() -> None:
    """The key is told once; the record holds its hash."""
    desk = Desk()
    await desk.registry.create(acme())
    limits = LimitSettings(requests_per_minute=5)
    issued = await desk.registry.add_key("acme", KeyOrder("Zapier", (Scope.READ,), limits=limits))
    caller = desk.tenants.authenticate(issued.plain)
    assert caller is not None
    assert (caller.key_id, caller.scopes, caller.limits) == (issued.record.id, frozenset({Scope.READ}), limits)
    assert issued.record.hash == hash_key(issued.plain)
    assert issued.plain not in repr(issued)


async def test_a_key_ends_when_it_expires() -> None:
    """Valid one second before, gone at the time itself; one that expires in the past is not made."""
    desk = Desk()
    await desk.registry.create(acme())
    expires_at = NOON + timedelta(hours=1)
    issued = await desk.registry.add_key("acme", KeyOrder("short", ALL_SCOPES, expires_at))
    desk.clock.now = expires_at - timedelta(seconds=1)
    assert desk.tenants.authenticate(issued.plain) is not None
    desk.clock.now = expires_at
    assert desk.tenants.authenticate(issued.plain) is None
    with pytest.raises(InvalidInput, match="expires_at: must lie in the future"):
        await desk.registry.add_key("acme", KeyOrder("late", ALL_SCOPES, expires_at))


async def test_a_rotated_key_works_for_its_overlap() -> None:
    """Both keys open for 60 s, then the new one alone; it has the old one's name and scopes."""
    desk = Desk()
    await desk.registry.create(acme())
    old = await desk.registry.add_key("acme", READER)
    new = await desk.registry.rotate_key("acme", old.record.id, overlap_s=60)
    assert (new.record.name, new.record.scopes) == ("Make", (Scope.GENERATE, Scope.READ))
    desk.clock.now += timedelta(seconds=59)
    assert desk.tenants.authenticate(old.plain) is not None
    desk.clock.now += timedelta(seconds=1)
    assert desk.tenants.authenticate(old.plain) is None
    assert desk.tenants.authenticate(new.plain) is not None
    record = desk.registry.get("acme").key(old.record.id)
    assert record is not None
    assert record.replaced_by == new.record.id


async def test_a_key_is_rotated_once() -> None:
    """Two rotations of one key would leave two successors; an ended key has none."""
    desk = Desk()
    await desk.registry.create(acme())
    old = await desk.registry.add_key("acme", READER)
    new = await desk.registry.rotate_key("acme", old.record.id, overlap_s=60)
    with pytest.raises(Conflict) as caught:
        await desk.registry.rotate_key("acme", old.record.id, overlap_s=60)
    assert caught.value.blocking_id == new.record.id
    await desk.registry.revoke_key("acme", new.record.id)
    with pytest.raises(Conflict, match="has ended"):
        await desk.registry.rotate_key("acme", new.record.id, overlap_s=60)


async def test_a_rotation_never_prolongs_a_key() -> None:
    """A key that expires in 10 s still does with an overlap of an hour."""
    desk = Desk()
    await desk.registry.create(acme())
    soon = NOON + timedelta(seconds=10)
    old = await desk.registry.add_key("acme", KeyOrder("short", ALL_SCOPES, soon))
    await desk.registry.rotate_key("acme", old.record.id, overlap_s=3600)
    ending = desk.registry.get("acme").key(old.record.id)
    assert ending is not None
    assert ending.expires_at == soon


async def test_a_revoked_key_ends_at_once() -> None:
    """Twice is the same as once; an unknown key or tenant is told."""
    desk = Desk()
    await desk.registry.create(acme())
    issued = await desk.registry.add_key("acme", READER)
    first = await desk.registry.revoke_key("acme", issued.record.id)
    desk.clock.now += timedelta(seconds=5)
    assert await desk.registry.revoke_key("acme", issued.record.id) == first
    assert desk.tenants.authenticate(issued.plain) is None
    with pytest.raises(NotFound, match="tenant acme has no key key_x"):
        await desk.registry.revoke_key("acme", "key_x")
    with pytest.raises(NotFound, match="there is no tenant zeta"):
        await desk.registry.revoke_key("zeta", "key_x")


async def test_a_tenant_has_a_bounded_number_of_keys() -> None:
    """MAX_KEYS, and not one more."""
    desk = Desk()
    await desk.registry.create(acme())
    for _ in range(MAX_KEYS):
        await desk.registry.add_key("acme", READER)
    with pytest.raises(InvalidInput, match="keys: must be at most 100 for one tenant"):
        await desk.registry.add_key("acme", READER)


async def test_another_process_sees_a_change_when_it_refreshes() -> None:
    """Two registries on one store; the second one's key look-ups follow after a refresh."""
    desk = Desk()
    other = Desk(desk.store)
    await desk.registry.create(acme())
    issued = await desk.registry.add_key("acme", READER)
    assert other.tenants.authenticate(issued.plain) is None
    await other.registry.refresh()
    assert other.tenants.authenticate(issued.plain) is not None


async def test_uses_are_written_by_key_and_only_of_tenants_that_are_there() -> None:
    """The last use of each key; nothing twice, nothing of a tenant that was deleted meanwhile."""
    desk = Desk()
    await desk.registry.create(acme())
    issued = await desk.registry.add_key("acme", READER)
    desk.tenants.authenticate(issued.plain)
    desk.clock.now += timedelta(seconds=30)
    desk.tenants.authenticate(issued.plain)
    await desk.registry.note_uses()
    assert await desk.registry.last_used("acme") == {issued.record.id: NOON + timedelta(seconds=30)}
    assert desk.tenants.take_uses() == {}
    desk.tenants.authenticate(issued.plain)
    await desk.registry.delete("acme")
    await desk.registry.note_uses()
    assert await desk.store.last_used("acme") == {}


async def test_listeners_hear_of_every_change() -> None:
    """At once when they begin to listen, and after each write."""
    desk = Desk()
    heard: list[list[str]] = []
    desk.tenants.follow(lambda settings: heard.append([tenant.id for tenant in settings]))
    await desk.registry.create(acme())
    await desk.registry.delete("acme")
    assert (heard[0], heard[-1]) == ([], [])
    assert ["acme"] in heard


async def test_a_running_registry_follows_the_store_through_its_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that cannot be reached is logged; once it can, a key that another process revoked opens nothing."""
    monkeypatch.setattr("service.tenancy.registry._POLL_S", 0.005)
    desk = Desk()
    await desk.registry.create(acme())
    issued = await desk.registry.add_key("acme", READER)
    other = Desk(desk.store)
    await other.registry.refresh()
    running = asyncio.create_task(other.registry.run())
    await desk.registry.revoke_key("acme", issued.record.id)
    desk.store.failure = StoreError("down")
    with structlog.testing.capture_logs() as logs:
        await asyncio.sleep(0.05)
    assert "tenants_not_refreshed" in {line["event"] for line in logs}
    desk.store.failure = None
    for _ in range(200):
        await asyncio.sleep(0.005)
        if other.tenants.authenticate(issued.plain) is None:
            break
    assert other.tenants.authenticate(issued.plain) is None
    running.cancel()


async def test_a_store_of_its_own_is_not_asked_for_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else writes an embedded store: a revision that grew behind the registry's back stays unseen."""
    monkeypatch.setattr("service.tenancy.registry._POLL_S", 0.001)
    monkeypatch.setattr("service.tenancy.registry._NOTE_S", 0.002)
    desk = Desk()
    alone = Desk(desk.store)
    await alone.registry.open([], sole_user=True)
    running = asyncio.create_task(alone.registry.run())
    await desk.registry.create(acme())
    await asyncio.sleep(0.03)
    assert alone.tenants.get("acme") is None
    running.cancel()
