"""What a canary needs of the node, as Protocols. Their fakes are in service.canary.fakes."""

from collections.abc import Sequence
from typing import Protocol

from service.canary.comparison import Difference
from service.canary.records import Baseline, StoredTrial, TrialRecord
from trainer.ports import Method
from trainer.records import PolicyRecord


class Policies(Protocol):
    """Published policies; trainer.publication.Publisher in a node."""

    @property
    def active_version(self) -> int: ...

    @property
    def method(self) -> Method: ...

    async def find(self, version: int) -> PolicyRecord:
        """Raises NotFound."""
        ...

    def holds(self, version: int) -> bool:
        """Whether the engine can answer with a version now."""
        ...

    async def ensure(self, version: int) -> None:
        """Make sure that the engine holds a version, without sending anybody to it. Raises NotFound, PublicationFailed,
        EngineDead."""
        ...

    async def activate(self, version: int) -> PolicyRecord:
        """Send everybody to a version. Raises NotFound, Conflict, PublicationFailed."""
        ...

    async def previous(self) -> int | None:
        """The version that was active before; None when there was none."""
        ...


class TrialStore(Protocol):
    """Where trials outlive the process. Every method raises StoreError."""

    async def load(self) -> tuple[StoredTrial | None, Baseline | None]:
        """The running trial and the active policy's baseline; None for what there is not."""
        ...

    async def save(self, trial: StoredTrial | None, baseline: Baseline) -> None:
        """Keep both, in place of what was kept."""
        ...

    async def end(self, record: TrialRecord) -> None:
        """The running trial has ended: only its record is kept, among the newest hundred."""
        ...

    async def ended(self) -> Sequence[TrialRecord]:
        """Trials that ended, newest first."""
        ...


class TrialEvents(Protocol):
    """Who hears of trials. Returns at once and never raises."""

    def started(self, record: TrialRecord) -> None:
        """A canary or watch has begun."""
        ...

    def resumed(self, record: TrialRecord) -> None:
        """It goes on after a restart."""
        ...

    def compared(self, record: TrialRecord, differences: Sequence[Difference]) -> None:
        """The two sides were compared once more."""
        ...

    def ended(self, record: TrialRecord) -> None:
        """It has an outcome."""
        ...
