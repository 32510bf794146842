"""What a tenant's pins must keep to."""

import pytest

from agent.config import LanguageSettings, TenantSettings
from agent.errors import InvalidConfig, InvalidInput
from service.http.fake_tuning import BASE_POLICY, EPOCH, FakePolicies
from service.pins import PolicyPins
from service.routable_slots import RoutableSlots
from service.routing import PolicyRoutes
from trainer.records import PolicyRecord


def pinned(tenant: str, everywhere: int | None = None, **languages: int | None) -> TenantSettings:
    chosen = languages or {"de": None}
    return TenantSettings(
        id=tenant, languages={code: LanguageSettings(policy=pin) for code, pin in chosen.items()}, policy=everywhere
    )


@pytest.fixture
def policies() -> FakePolicies:
    made = {version: PolicyRecord(version, "adapter", 0, "run_1", EPOCH, None, None, None) for version in (1, 2, 3)}
    own = PolicyRecord(9, "adapter", 0, "run_2", EPOCH, None, None, None, "zeta")
    return FakePolicies({0: BASE_POLICY, **made, 9: own}, evicted={2})


def rules(policies: FakePolicies, num_slots: int = 2) -> PolicyPins:
    return PolicyPins(policies, PolicyRoutes(), RoutableSlots(num_slots))


async def test_a_pinned_version_is_in_the_engine_when_the_pin_is_written(policies: FakePolicies) -> None:
    """It had lost its slot."""
    await rules(policies).check(pinned("acme", de=2), [])
    assert policies.holds(2)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (pinned("acme", 7), "policy"),
        (pinned("acme", de=7), "languages.de.policy"),
        (pinned("acme", 1, de=None, en=9), "languages.en.policy"),
    ],
)
async def test_a_version_must_be_published_and_the_tenants_to_have(
    policies: FakePolicies, settings: TenantSettings, field: str
) -> None:
    """The field is named; another tenant's own policy is no more there than one that was never made."""
    with pytest.raises(InvalidInput, match="must be a published policy that the tenant may have") as refused:
        await rules(policies).check(settings, [])
    assert refused.value.field == field


async def test_pins_of_all_tenants_share_the_slots(policies: FakePolicies) -> None:
    """Two slots: 1 and 2 fill them, 0 needs none, and the same version needs but one."""
    one = rules(policies)
    await one.check(pinned("acme", 1), [pinned("zeta", 2), pinned("globex", 0), pinned("initech", 2)])
    with pytest.raises(InvalidInput, match=r"may have 2 versions together .* and would have 3: 1, 2, 3"):
        await one.check(pinned("acme", 3), [pinned("zeta", 2), pinned("globex", 1)])


async def test_a_policy_that_cannot_be_loaded_is_refused(policies: FakePolicies) -> None:
    """Its folder is damaged."""
    policies.damaged.add(3)
    with pytest.raises(InvalidInput, match="must be a policy that can be served, got 3"):
        await rules(policies).check(pinned("acme", 3), [])


async def test_the_file_is_held_to_the_same_rules(policies: FakePolicies) -> None:
    """By the path of the key; nothing is loaded, for there is no engine yet."""
    await rules(policies).check_file([pinned("acme", 2)])
    assert not policies.holds(2)
    with pytest.raises(InvalidConfig) as refused:
        await rules(policies).check_file([pinned("acme"), pinned("zeta", de=7)])
    assert refused.value.field == "tenants[1].languages.de.policy"
    policies.method = "full"
    with pytest.raises(InvalidConfig, match="one copy of the weights"):
        await rules(policies).check_file([pinned("acme", 1)])
