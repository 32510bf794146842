"""What is kept of a canary, and of the watch over a policy that has taken over."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from service.canary.tally import Side


class Kind(StrEnum):
    """What is compared with what."""

    CANARY = "canary"
    """A candidate on a share of the traffic, with the active policy on the rest, at the same time."""
    WATCH = "watch"
    """The active policy, with what its predecessor had got before it."""


class Outcome(StrEnum):
    """How a trial ended."""

    PROMOTED = "promoted"
    """The candidate is active now."""
    HARMFUL = "harmful"
    """The candidate did harm: a canary is taken back, a watched policy rolled back."""
    UNDECIDED = "undecided"
    """A canary's time was over before it was shown to be no worse; the stable policy stays."""
    STOPPED = "stopped"
    """An operator ended it; the stable policy answers."""
    SUPERSEDED = "superseded"
    """Another canary or policy took its place."""
    INTERRUPTED = "interrupted"
    """The node was started again and could not go on with it; the active policy answers."""
    PASSED = "passed"
    """A watched policy did no harm in its time."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One canary or watch."""

    id: str
    kind: Kind
    candidate: int
    stable: int
    languages: tuple[str, ...]
    started_at: datetime
    share: float = 1.0
    """Of the subjects that the candidate answers."""
    outcome: Outcome | None = None
    """None while it runs."""
    reason: str | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """A running trial with what both sides have got so far."""

    record: TrialRecord
    candidate: Side = field(default_factory=Side)
    stable: Side = field(default_factory=Side)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What the active policy has got lately: what its successor will be compared with."""

    version: int
    side: Side = field(default_factory=Side)
