"""What a tenant's pins must keep to: published versions that it may have, and a slot for each."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agent.config import TenantSettings
from agent.errors import ColoqError, InvalidConfig, InvalidInput, NoAdapterSlot, NotFound
from service.canary.ports import Policies
from service.routable_slots import RoutableSlots
from service.routing import PolicyRoutes, pins_of


@dataclass(frozen=True, slots=True)
class PolicyPins:
    """The rules of one node."""

    policies: Policies
    routes: PolicyRoutes
    slots: RoutableSlots

    async def check(self, settings: TenantSettings, others: Sequence[TenantSettings]) -> None:
        """Pass, with every version that is pinned in the engine, or name the field and the rule.

        Raises:
            InvalidInput: a version was not published, is another tenant's, finds no slot or cannot be loaded.
        """
        pinned = list(_pins(settings))
        for field, version in pinned:
            await self._check_published(settings.id, field, version)
        if pinned:
            self._check_slots(pinned[0][0], [settings, *others])
        for field, version in pinned:
            try:
                await self.policies.ensure(version)
            except ColoqError as error:
                raise InvalidInput(field, f"must be a policy that can be served, got {version}: {error}") from error

    async def check_file(self, tenants: Sequence[TenantSettings]) -> None:
        """The same for a configuration file, before there is an engine.

        Raises:
            InvalidConfig: see ``check``.
        """
        for index, tenant in enumerate(tenants):
            for field, version in _pins(tenant):
                path = f"tenants[{index}].{field}"
                try:
                    await self._check_published(tenant.id, path, version)
                    self._check_slots(path, tenants)
                except InvalidInput as error:
                    raise InvalidConfig(error.field, error.message) from error

    async def _check_published(self, tenant: str, field: str, version: int) -> None:
        if self.policies.method == "full":
            raise InvalidInput(
                field, 'must be unset with tuning.method = "full": there is one copy of the weights, for everybody'
            )
        try:
            record = await self.policies.find(version)
        except NotFound:
            record = None
        if record is None or record.tenant not in (None, tenant):
            raise InvalidInput(field, f"must be a published policy that the tenant may have, got {version}")

    def _check_slots(self, field: str, tenants: Sequence[TenantSettings]) -> None:
        try:
            self.slots.check(self.routes.versions(pins=pins_of(tenants)))
        except NoAdapterSlot as error:
            raise InvalidInput(field, f"must find a free adapter slot: {error}") from error


def _pins(settings: TenantSettings) -> Iterator[tuple[str, int]]:
    """Fields that pin, and to what."""
    if settings.policy is not None:
        yield "policy", settings.policy
    for code, language in settings.languages.items():
        if language.policy is not None:
            yield f"languages.{code}.policy", language.policy
