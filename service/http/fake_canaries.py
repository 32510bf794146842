"""Canaries of a node without an engine or a store."""

from collections.abc import Sequence

from rewards.fakes import FakeRewardModel
from service.canary.canaries import Canaries
from service.canary.config import CanaryConfig
from service.canary.fakes import MemoryTrials, RememberedTrials
from service.canary.feedback import FeedbackInbox
from service.canary.parts import CanaryParts
from service.canary.ports import Policies
from service.canary.scoring import SampledScoring
from service.canary.traffic import Traffic
from service.feedback.fakes import MemoryEpisodes
from service.pins import PolicyPins
from service.routable_slots import RoutableSlots
from service.routing import PolicyRoutes
from service.tenant_policies import TenantPolicies
from trainer.fakes import FakeAdmission, MemoryLedger


def canaries_of(
    policies: Policies, languages: Sequence[str] = ("de", "en", "pl")
) -> tuple[Canaries, TenantPolicies, PolicyPins]:
    """The real canaries, tenants' policies and pins over fakes; three versions may answer beside the active one."""
    routes, slots = PolicyRoutes(), RoutableSlots(3)
    traffic = Traffic(routes)
    parts = CanaryParts(
        policies=policies,
        routes=routes,
        traffic=traffic,
        scoring=SampledScoring(traffic, FakeRewardModel(), FakeAdmission(), per_minute=60),
        feedback=FeedbackInbox(traffic, MemoryEpisodes()),
        store=MemoryTrials(),
        events=RememberedTrials(),
        languages=lambda: languages,
        slots=slots,
    )
    tenants = TenantPolicies(MemoryLedger(), routes, slots)
    return Canaries(CanaryConfig(), parts), tenants, PolicyPins(policies, routes, slots)
