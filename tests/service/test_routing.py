"""Which policy answers a request that names none."""

import pytest

from agent.completion import Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.ports import Audience, GenerateRequest
from service.canary.split import Split, fraction
from service.routing import PolicyRoutes, pins_of
from service.versions import AdapterVersions

ACME = TenantSettings(id="acme", languages={"de": LanguageSettings(policy=4), "en": LanguageSettings()}, policy=3)
ZETA = TenantSettings(id="zeta", languages={"de": LanguageSettings(), "en": LanguageSettings()})
EVERYBODY = Split(version=7, share=0.999999, languages={"de", "en"})


def routes() -> PolicyRoutes:
    made = PolicyRoutes()
    made.use_pins([ACME, ZETA])
    return made


def test_a_languages_pin_goes_before_the_tenants() -> None:
    """acme's German is pinned to 4 by the language, its English to 3 by the tenant; zeta has no pin."""
    assert pins_of([ACME, ZETA]) == {("acme", "de"): 4, ("acme", "en"): 3}


def test_pin_then_tenants_policy_then_canary_then_active() -> None:
    """Each is taken away in turn, and the next one answers."""
    table = routes()
    table.use_tenant_policies({"acme": 6, "zeta": 6})
    table.split = EVERYBODY
    assert table.version_for(Audience("acme", "de", "r1"), active=1) == 4
    assert table.version_for(Audience("zeta", "de", "r1"), active=1) == 6
    table.use_tenant_policies({})
    assert table.version_for(Audience("zeta", "de", "r1"), active=1) == 7
    table.split = None
    assert table.version_for(Audience("zeta", "de", "r1"), active=1) == 1
    assert table.version_for(None, active=1) == 1


def test_a_version_that_the_engine_does_not_hold_is_passed_over() -> None:
    """The active policy answers instead: no request fails because of a route. A pinned tenant gets no candidate."""
    table = routes()
    table.split = EVERYBODY
    table.serve_from(lambda version: version == 7)
    assert table.version_for(Audience("acme", "de", "r1"), active=1) == 1
    assert table.version_for(Audience("zeta", "de", "r1"), active=1) == 7
    table.serve_from(lambda version: False)
    assert table.version_for(Audience("zeta", "de", "r1"), active=1) == 1


def test_every_routed_version_needs_a_slot_but_the_base_model() -> None:
    """Pins 4 and 3, a tenant's 6, the candidate 7; 0 is the engine's own."""
    table = routes()
    table.use_tenant_policies({"zeta": 6, "globex": 0})
    table.split = EVERYBODY
    assert table.versions() == {3, 4, 6, 7}


def test_a_request_that_names_a_version_gets_it() -> None:
    """Whatever the routes say."""
    versions = AdapterVersions(routes())
    versions.activate(1)
    named = GenerateRequest(
        "r", (1,), Sampling(max_tokens=4), policy_version=2, audience=Audience("acme", "de", "person")
    )
    unnamed = GenerateRequest("r", (1,), Sampling(max_tokens=4), audience=Audience("acme", "de-AT", "person"))
    assert (versions.start(named).adapter, versions.start(unnamed).adapter) == (2, 4)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_a_split_takes_its_share_of_the_subjects(share: float) -> None:
    """Of 10,000 subjects the share, within four deviations: 4 * sqrt(10,000 / 4) = 200 at the most."""
    split = Split(3, share, {"de"})
    taken = sum(split.takes(Audience("acme", "de", f"user-{number}")) for number in range(10_000))
    assert abs(taken - share * 10_000) <= 200


def test_one_subject_stays_on_one_side() -> None:
    """In every language that takes part, and in every process: the hash is of the request alone. sha256sum gives
    afb1694e721c938e... for '[3, "acme", "user-1"]'."""
    assert fraction(3, Audience("acme", "de", "user-1")) == 0xAFB1694E721C938E / 2**64
    split = Split(3, 0.5, {"de", "en"})
    for number in range(50):
        sides = {split.takes(Audience("acme", language, f"user-{number}")) for language in ("de", "en", "de-CH")}
        assert len(sides) == 1
    assert not Split(3, 0.999, {"de"}).takes(Audience("acme", "fr", "user-1"))


def test_another_canary_takes_other_people() -> None:
    """Half of those that one takes at share 0.5 are left to the other: 1,000 of 2,000, within four deviations of 22."""
    people = [Audience("acme", "de", f"user-{number}") for number in range(4_000)]
    first, second = ([Split(version, 0.5, {"de"}).takes(person) for person in people] for version in (3, 4))
    both = sum(one and other for one, other in zip(first, second, strict=True))
    assert abs(both - 1_000) <= 4 * 28  # sqrt(4,000 * 1/4 * 3/4) = 27.4
