"""The tenants of a node: who they are, what they may use, and what they have used."""

from dataclasses import dataclass

from agent.prompt import PromptLibrary
from rewards.second_opinion import langdetect_labels
from service.assembly.ground import Ground
from service.assembly.judges import Judges
from service.reward_rules import reward_parts
from service.tenancy.limits import Limiter
from service.tenancy.registry import TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenancy.store import RedisTenantStore
from service.tenancy.usage import DailyUsage, RedisUsageStore
from service.tenants import Tenants
from service.webhooks.assembly import Webhooks


@dataclass(frozen=True, slots=True)
class Tenancy:
    """``tenants`` is what requests read; ``registry`` is what writes it."""

    tenants: Tenants
    registry: TenantRegistry
    usage: DailyUsage
    limits: Limiter


async def open_tenancy(ground: Ground, judges: Judges, webhooks: Webhooks) -> Tenancy:
    """Read the tenants of file and store, seat each at the panel, and count today's usage.

    Raises:
        InvalidConfig: a tenant in the file breaks a rule.
        StoreError: the store does not answer.
    """
    tenants = Tenants()
    templates = PromptLibrary.load().languages
    rules = TenantRules(judges.contract.labels, reward_parts(ground.config), langdetect_labels(), templates)
    registry = TenantRegistry(RedisTenantStore(ground.store), tenants, rules)
    await registry.open(ground.config.tenants, sole_user=ground.store.embedded is not None)
    await webhooks.forget_unknown(lambda tenant: tenants.get(tenant) is not None)
    tenants.follow(judges.panel.seat)
    usage = DailyUsage(RedisUsageStore(ground.store))
    await usage.read(record.id for record in registry.list())
    return Tenancy(tenants, registry, usage, Limiter(usage))
