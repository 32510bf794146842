"""What becomes of the versions that a bench's training makes, by method; trainer.promotion without gate and ledger.

adapter   settled: forgotten. Published: installed in a slot and switched to
full      settled and published alike: copied over the live weights, which must come before the next step
"""

import asyncio
from typing import Protocol

from trainer.adapters import AdapterSlots
from trainer.live import LiveWeights
from trainer.ports import LearnerSettings, TrainerPort

_RUN_ID = "bench"


class Versions(Protocol):
    """The versions of one learner."""

    @property
    def steps_in_hand(self) -> int:
        """Steps that the learner may be given at once."""
        ...

    async def begin(self, settings: LearnerSettings) -> None:
        """Start a run on the base model."""
        ...

    async def settle(self, version: int) -> None:
        """A step has made ``version``, which nobody needs."""
        ...

    async def publish(self, version: int) -> None:
        """Make the version of the last step the one that answers."""
        ...

    async def end(self) -> None:
        """The run is over."""
        ...


class AdapterVersions:
    """Method ``adapter``."""

    steps_in_hand = 2
    """One runs, one waits: the learner never waits for the front process."""

    def __init__(self, trainer: TrainerPort, slots: AdapterSlots) -> None:
        self._trainer, self._slots = trainer, slots
        self._removals: set[asyncio.Task[None]] = set()

    async def begin(self, settings: LearnerSettings) -> None:
        """See Versions.begin."""
        await self._trainer.begin(settings, None)

    async def settle(self, version: int) -> None:
        """See Versions.settle. Returns at once: a removal waits in the learner's queue behind the step in hand."""
        removal = asyncio.create_task(self._trainer.remove(version))
        self._removals.add(removal)
        removal.add_done_callback(self._removals.discard)

    async def publish(self, version: int) -> None:
        """See Versions.publish. The oldest version leaves its slot when there is none free."""
        await self._slots.install(version)
        await self._slots.switch(version)

    async def end(self) -> None:
        """See Versions.end. Raises what a removal raised."""
        await asyncio.gather(*self._removals)


class FullVersions:
    """Method ``full``."""

    steps_in_hand = 1

    def __init__(self, trainer: TrainerPort, live: LiveWeights) -> None:
        self._trainer, self._live = trainer, live

    async def begin(self, settings: LearnerSettings) -> None:
        """See Versions.begin."""
        await self._live.begin(_RUN_ID)
        await self._trainer.begin(settings, None)

    async def settle(self, version: int) -> None:
        """See Versions.settle."""
        await self.publish(version)

    async def publish(self, version: int) -> None:
        """See Versions.publish."""
        await self._live.publish(_RUN_ID, version)

    async def end(self) -> None:
        """See Versions.end. The base model's weights are restored."""
        await self._live.release(_RUN_ID)
