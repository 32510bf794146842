"""What canaries are made of, and what they tell."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.canary.comparison import Difference
from service.canary.feedback import FeedbackInbox
from service.canary.ports import Policies, TrialEvents, TrialStore
from service.canary.records import TrialRecord
from service.canary.scoring import SampledScoring
from service.canary.traffic import Traffic
from service.routable_slots import RoutableSlots
from service.routing import PolicyRoutes


@dataclass(frozen=True, slots=True)
class Status:
    """What runs, how it stands, and what ended."""

    record: TrialRecord | None
    differences: Sequence[Difference]
    missing: Sequence[str]
    """What is not shown yet of a canary."""
    num_candidate: dict[str, int]
    """Replies that were compared, by language."""
    num_stable: dict[str, int]
    ended: Sequence[TrialRecord]


@dataclass(frozen=True, slots=True)
class CanaryParts:
    """What canaries are made of."""

    policies: Policies
    routes: PolicyRoutes
    traffic: Traffic
    scoring: SampledScoring
    feedback: FeedbackInbox
    store: TrialStore
    events: TrialEvents
    languages: Callable[[], Sequence[str]]
    """Those of all tenants."""
    slots: RoutableSlots
