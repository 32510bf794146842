"""How many versions may answer beside the active one: each of them keeps an adapter slot."""

from collections.abc import Collection
from dataclasses import dataclass

from agent.errors import NoAdapterSlot


@dataclass(frozen=True, slots=True)
class RoutableSlots:
    """The slots of one node that pins, tenants' policies and a canary share."""

    num: int

    def check(self, versions: Collection[int]) -> None:
        """Refuse more versions than there are slots for.

        Raises:
            NoAdapterSlot: with how many there are, and which versions there would be.
        """
        if len(versions) > self.num:
            listed = ", ".join(map(str, sorted(versions)))
            raise NoAdapterSlot(
                f"pins, tenants' own policies and a canary may have {self.num} versions together "
                f"(tuning.keep_adapters - 1), and would have {len(versions)}: {listed}"
            )
