"""What the tenants' registry needs of a store and of policies, as Protocols. The store's fake is in
service.tenancy.fakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent.config import TenantSettings
from service.tenancy.record import TenantRecord


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Every tenant at one revision of the whole."""

    revision: int
    records: tuple[TenantRecord, ...]
    """Sorted by id."""
    deleted: frozenset[str] = frozenset()
    """Ids that an operator deleted and nobody made again."""


class TenantStore(Protocol):
    """Where tenants are kept. Every method raises StoreError when the store cannot be reached."""

    async def revision(self) -> int:
        """Grows with every write of any tenant."""
        ...

    async def load(self) -> Snapshot:
        """Everything."""
        ...

    async def save(self, record: TenantRecord) -> TenantRecord:
        """Write a record over the one of the same revision; returns it with the next one.

        Raises:
            Conflict: somebody else wrote it meanwhile.
        """
        ...

    async def delete(self, record: TenantRecord, *, by_operator: bool) -> None:
        """Remove the record of this revision; ``by_operator`` keeps its id among ``deleted``.

        Raises:
            Conflict: somebody else wrote it meanwhile.
        """
        ...

    async def note_use(self, tenant: str, used_at: Mapping[str, datetime]) -> None:
        """Keep when keys were last used, by key id."""
        ...

    async def last_used(self, tenant: str) -> dict[str, datetime]:
        """When the tenant's keys were last used, by key id; a key that never was is absent."""
        ...


class PinRules(Protocol):
    """What pinned policies must keep to; service.pins.PolicyPins in a node."""

    async def check(self, settings: TenantSettings, others: Sequence[TenantSettings]) -> None:
        """Pass, with every pinned version ready to answer, or name the field and the rule.

        Raises:
            InvalidInput: a rule is broken.
        """
        ...
