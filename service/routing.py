"""Which policy answers a request, decided without I/O when the request starts:

    named by the request > the tenant's pin > the tenant's own policy > the canary's candidate > the active policy

A version that the engine does not hold at that moment is passed over, so that no request fails by it; whoever keeps the
slots is asked for every version that may be routed to (``PolicyRoutes.versions``) and brings a missing one back.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from agent.completion import BASE_VERSION
from agent.config import TenantSettings
from agent.language import primary_code
from agent.ports import Audience
from service.canary.split import Split


class PolicyRoutes:
    """The routes of one node. Changes are assignments, so a request sees all of one or nothing of it."""

    def __init__(self) -> None:
        self._holds: Callable[[int], bool] = lambda version: True
        self._pins: Mapping[tuple[str, str], int] = {}
        self._tenants: Mapping[str, int] = {}
        self.split: Split | None = None
        """The running canary's."""

    def serve_from(self, holds: Callable[[int], bool]) -> None:
        """Ask ``holds`` from now on whether the engine can answer with a version."""
        self._holds = holds

    def use_pins(self, tenants: Sequence[TenantSettings]) -> None:
        """Take the pins of these tenants, by tenant and language."""
        self._pins = dict(pins_of(tenants))

    def use_tenant_policies(self, versions: Mapping[str, int]) -> None:
        """Take these as the tenants' own policies."""
        self._tenants = dict(versions)

    @property
    def tenant_policies(self) -> Mapping[str, int]:
        """Tenants to the policies that are theirs alone."""
        return MappingProxyType(dict(self._tenants))

    def versions(
        self,
        *,
        pins: Mapping[tuple[str, str], int] | None = None,
        tenants: Mapping[str, int] | None = None,
        candidate: int | None = None,
    ) -> frozenset[int]:
        """Every version that needs a slot beside the active one's, whatever that is; with other pins, tenants' policies
        or another candidate than the present ones where they are given."""
        pinned = (self._pins if pins is None else pins).values()
        owned = (self._tenants if tenants is None else tenants).values()
        tried = self.split.version if candidate is None and self.split is not None else candidate
        return frozenset({*pinned, *owned, BASE_VERSION if tried is None else tried} - {BASE_VERSION})

    def version_for(self, audience: Audience | None, active: int) -> int:
        """The version that answers a request which names none."""
        if audience is None:
            return active
        bound = self.bound_version(audience)
        if bound is not None and self._holds(bound):
            return bound
        split = self.split
        if bound is None and split is not None and split.takes(audience) and self._holds(split.version):
            return split.version
        return active

    def bound_version(self, audience: Audience) -> int | None:
        """The tenant's pin or own policy; None for a tenant that shares the common policy in this language."""
        pin = self._pins.get((audience.tenant, primary_code(audience.language)))
        return pin if pin is not None else self._tenants.get(audience.tenant)


def pins_of(tenants: Sequence[TenantSettings]) -> dict[tuple[str, str], int]:
    """Pinned versions by tenant and language; a language's own pin goes before the tenant's."""
    return {
        (tenant.id, primary_code(code)): pin
        for tenant in tenants
        for code, settings in tenant.languages.items()
        if (pin := tenant.policy if settings.policy is None else settings.policy) is not None
    }
