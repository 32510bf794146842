"""Which versions hold an adapter slot of the engine, and who gives one up.

The engine has ``capacity`` slots. Never evicted are the active version, the newest (the candidate of a run), the one
that is about to become active and those that requests are routed to beside the active one; the rest go oldest first,
each once no request runs on it.
"""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from agent.completion import BASE_VERSION
from trainer.ports import Method, PolicySink, TrainerPort

log = structlog.get_logger(__name__)

_NEVER_ROUTED = 4
"""Slots of the active version, the newest, the one about to become active, and one that can be given up."""


def num_routable(capacity: int) -> int:
    """Versions that requests can be routed to beside the active one, of ``capacity`` slots."""
    return capacity - _NEVER_ROUTED


class AdapterSlots:
    """Installs and evicts versions, one change at a time. The base model needs no slot."""

    method: Method = "adapter"

    def __init__(
        self,
        trainer: TrainerPort,
        sink: PolicySink,
        *,
        capacity: int,
        folder_of: Callable[[int], Path],
        routed: Callable[[], Collection[int]] = frozenset,
    ) -> None:
        """``routed`` names the versions that requests may be sent to beside the active one: ``num_routable`` at most,
        which is for the caller to see to."""
        if capacity < _NEVER_ROUTED:
            raise ValueError(f"capacity must be at least 4 (three versions are never evicted), got {capacity}")
        self._routed = routed
        self._trainer, self._sink = trainer, sink
        self._capacity = capacity
        self._folder_of = folder_of
        self._installed: list[int] = []
        self._leaving: set[int] = set()
        self._ensured = BASE_VERSION
        self._lock = asyncio.Lock()

    @property
    def installed(self) -> tuple[int, ...]:
        """Versions with a slot, longest installed first."""
        return tuple(self._installed)

    def holds(self, version: int) -> bool:
        """See trainer.publication.Placement.holds. A version that is about to go takes no new requests."""
        return version == BASE_VERSION or (version in self._installed and version not in self._leaving)

    def forget_all(self) -> None:
        """A new engine process starts with empty slots."""
        self._installed.clear()

    async def install(self, version: int) -> None:
        """Fill a slot with a version that the learner keeps; evict the oldest that may go."""
        async with self._lock:
            await self._install(version)

    async def ensure(self, version: int) -> None:
        """Make sure that a written version has a slot; reads it from its folder when it has none.

        It keeps the slot until another version is ensured, so that it can be activated.

        Raises:
            PublicationFailed: the folder is missing or damaged.
        """
        async with self._lock:
            if version != BASE_VERSION and version not in self._installed:
                await self._trainer.load(self._folder_of(version), version)
                await self._install(version)
            self._ensured = version

    async def switch(self, version: int) -> None:
        """Send new live requests to an ensured or installed version."""
        self._sink.activate(version)

    async def discard(self, version: int) -> None:
        """Free a version's slot once its requests have ended, and the weights that the learner keeps of it."""
        async with self._lock:
            await self._discard(version)

    async def _install(self, version: int) -> None:
        while len(self._installed) >= self._capacity:
            await self._discard(self._oldest_idle())
        await self._trainer.install(version)
        self._installed.append(version)

    async def _discard(self, version: int) -> None:
        self._leaving.add(version)
        try:
            await self._sink.drained(version)
            await self._trainer.remove(version)
        finally:
            self._leaving.discard(version)
        if version in self._installed:  # not so after forget_all, when the engine died meanwhile
            self._installed.remove(version)
        log.debug("adapter_evicted", version=version)

    def _oldest_idle(self) -> int:
        kept = {self._sink.active_version, self._ensured, max(self._installed), *self._routed()}
        return min(version for version in self._installed if version not in kept)
