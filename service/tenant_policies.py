"""Tenants that have a policy of their own, and who gets what a tuning run publishes.

a run for one tenant ──► that tenant's own policy
any other run ─────────► a canary (canary.on_publish), or everybody
"""

from collections.abc import Mapping, Sequence

import structlog

from agent.config import TenantSettings
from agent.errors import ColoqError, Conflict, NeedsAdapters, NotFound
from service.canary.canaries import Canaries
from service.canary.ports import Policies
from service.routable_slots import RoutableSlots
from service.routing import PolicyRoutes
from trainer.ports import PolicyLedger
from trainer.records import PolicyRecord

log = structlog.get_logger(__name__)


class TenantPolicies:
    """Keeps them in the ledger, and the routes in step with it."""

    def __init__(self, ledger: PolicyLedger, routes: PolicyRoutes, slots: RoutableSlots) -> None:
        self._ledger, self._routes, self._slots = ledger, routes, slots
        self._versions: dict[str, int] = {}
        self._tenants: frozenset[str] = frozenset()

    @property
    def versions(self) -> Mapping[str, int]:
        """Tenants of this node to the policies that are theirs."""
        return self._routes.tenant_policies

    async def open(self) -> None:
        """Take what the ledger holds. Raises StoreError."""
        self._versions = dict(await self._ledger.tenant_versions())
        self._apply()

    def use_tenants(self, tenants: Sequence[TenantSettings]) -> None:
        """Only these are routed to what is theirs."""
        self._tenants = frozenset(tenant.id for tenant in tenants)
        self._apply()

    async def give(self, policies: Policies, tenant: str, version: int) -> PolicyRecord:
        """Let a published version answer one tenant from now on.

        Raises:
            NotFound: no such tenant or published version.
            Conflict: the version is another tenant's.
            NeedsAdapters, NoAdapterSlot: there is no second copy of the weights, or no slot for it.
            PublicationFailed: its folder is missing or damaged.
        """
        if tenant not in self._tenants:
            raise NotFound(f"there is no tenant {tenant}")
        record = await policies.find(version)
        if policies.method == "full":
            raise NeedsAdapters(
                'a policy of its own needs tuning.method = "adapter": by method full there is one copy of the weights'
            )
        if record.tenant not in (None, tenant):
            raise Conflict(f"policy {version} was tuned for another tenant alone")
        self._slots.check(self._routes.versions(tenants={**self._routes.tenant_policies, tenant: version}))
        await policies.ensure(version)
        await self._note(tenant, version)
        return record

    async def take_back(self, policies: Policies, tenant: str, version: int, *, to: int | None = None) -> PolicyRecord:
        """Roll a tenant's own policy back: to ``to``, or the tenant's version before it, or else the common policy.

        Raises:
            Conflict: the version is not the tenant's policy.
            NotFound, NoAdapterSlot, PublicationFailed: of ``to``.
        """
        own = self.versions.get(tenant)
        if own != version:
            has = "shares the common policy" if own is None else f"has policy {own}"
            raise Conflict(f"policy {version} is not that of tenant {tenant}, which {has}")
        record = await policies.find(version)
        target = to if to is not None else record.parent
        if target is not None and (to is not None or (await policies.find(target)).tenant == tenant):
            return await self.give(policies, tenant, target)
        await self._note(tenant, None)
        return await policies.find(policies.active_version)

    def version_of(self, tenant: str) -> int | None:
        """See trainer.publication.Releases.version_of."""
        return self.versions.get(tenant)

    async def _note(self, tenant: str, version: int | None) -> None:
        await self._ledger.set_tenant_version(tenant, version)
        self._versions = {name: own for name, own in self._versions.items() if name != tenant}
        if version is not None:
            self._versions[tenant] = version
        self._apply()
        log.info("tenant_policy_changed", tenant=tenant, version=version)

    def _apply(self) -> None:
        self._routes.use_tenant_policies(
            {tenant: version for tenant, version in self._versions.items() if tenant in self._tenants}
        )


class NodeReleases:
    """trainer.publication.Releases of a node; ``connect`` it before the first publication."""

    def __init__(self, tenants: TenantPolicies, *, through_canary: bool) -> None:
        self._tenants, self._through_canary = tenants, through_canary
        self._parts: tuple[Policies, Canaries] | None = None

    def connect(self, policies: Policies, canaries: Canaries) -> None:
        """What was published is known to ``policies``, which know of these releases in turn."""
        self._parts = policies, canaries

    def version_of(self, tenant: str) -> int | None:
        """See Releases.version_of."""
        return self._tenants.version_of(tenant)

    async def release(self, record: PolicyRecord) -> bool:
        """See Releases.release. A canary that cannot start leaves the policy published, and nobody gets it."""
        if self._parts is None:
            return False
        policies, canaries = self._parts
        if record.tenant is not None:
            await self._tenants.give(policies, record.tenant, record.version)
            return True
        if not self._through_canary or policies.method == "full":
            return False
        try:
            await canaries.start(record.version, supersede=True)
        except ColoqError as error:
            log.error("canary_not_started", version=record.version, reason=str(error))
        return True
