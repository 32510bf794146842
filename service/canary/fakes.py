"""Fakes of service.canary.ports. They keep what they were told."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.errors import StoreError
from service.canary.comparison import Difference
from service.canary.records import Baseline, StoredTrial, TrialRecord


@dataclass
class MemoryTrials:
    """A store of trials in memory; ``failure`` is raised instead while it is set."""

    trial: StoredTrial | None = None
    baseline: Baseline | None = None
    records: list[TrialRecord] = field(default_factory=list)
    failure: StoreError | None = None
    num_saves: int = 0

    async def load(self) -> tuple[StoredTrial | None, Baseline | None]:
        """See TrialStore.load."""
        self._check()
        return copy.deepcopy((self.trial, self.baseline))

    async def save(self, trial: StoredTrial | None, baseline: Baseline) -> None:
        """See TrialStore.save."""
        self._check()
        self.num_saves += 1
        self.trial, self.baseline = copy.deepcopy((trial, baseline))

    async def end(self, record: TrialRecord) -> None:
        """See TrialStore.end."""
        self._check()
        self.trial = None
        self.records.insert(0, record)

    async def ended(self) -> Sequence[TrialRecord]:
        """See TrialStore.ended."""
        self._check()
        return list(self.records)

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


@dataclass
class RememberedTrials:
    """Who hears of trials, and remembers: ``started``, ``ended`` and the last comparison."""

    heard: list[tuple[str, TrialRecord]] = field(default_factory=list)
    differences: Sequence[Difference] = ()

    def started(self, record: TrialRecord) -> None:
        """See TrialEvents.started."""
        self.heard.append(("started", record))

    def resumed(self, record: TrialRecord) -> None:
        """See TrialEvents.resumed."""
        self.heard.append(("resumed", record))

    def compared(self, record: TrialRecord, differences: Sequence[Difference]) -> None:
        """See TrialEvents.compared."""
        self.differences = differences

    def ended(self, record: TrialRecord) -> None:
        """See TrialEvents.ended."""
        self.heard.append(("ended", record))
