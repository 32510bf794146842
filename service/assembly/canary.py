"""How a node tries policies: traffic is watched, compared, and acted upon."""

import math
from dataclasses import dataclass

from service.assembly.engine_room import EngineRoom
from service.assembly.ground import Ground
from service.assembly.judges import Judges
from service.assembly.tenancy import Tenancy
from service.assembly.tuning import Tuning
from service.canary.canaries import Canaries
from service.canary.cap import PersonCap
from service.canary.feedback import FeedbackInbox
from service.canary.metrics import CanaryMetrics
from service.canary.parts import CanaryParts
from service.canary.scoring import SampledScoring
from service.canary.store import RedisTrials
from service.canary.telling import CanaryTelling
from service.canary.traffic import Traffic
from service.pins import PolicyPins
from service.tenancy.audit import AuditLog
from service.webhooks.announcements import Announcements


@dataclass(frozen=True, slots=True)
class Trials:
    """The canaries, what they hear of, and who hears of them."""

    canaries: Canaries
    traffic: Traffic
    telling: CanaryTelling
    feedback: FeedbackInbox


async def open_trials(
    ground: Ground,
    judges: Judges,
    room: EngineRoom,
    tenancy: Tenancy,
    tuning: Tuning,
    announcements: Announcements,
    audit: AuditLog,
) -> Trials:
    """Connect what is published with who gets it, and hold the tenants' pins to what is there.

    Raises:
        InvalidConfig: the file pins a tenant to a version that was not published, or to more than there are slots for.
        StoreError: the store does not answer.
    """
    config = ground.config.canary
    pins = PolicyPins(tuning.publisher, room.routes, tuning.slots)
    await pins.check_file(ground.config.tenants)
    tenancy.registry.hold_pins_to(pins)
    metrics = CanaryMetrics(ground.metrics.registry)
    traffic = Traffic(room.routes, PersonCap(config.per_end_user, period_s=config.watch_s or math.inf))
    traffic.on_reply = metrics.replied
    inbox = FeedbackInbox(traffic, tuning.journal)
    telling = CanaryTelling(metrics, announcements, audit)
    parts = CanaryParts(
        policies=tuning.publisher,
        routes=room.routes,
        traffic=traffic,
        scoring=SampledScoring(traffic, judges.panel, room.gate, config.scored_per_minute),
        feedback=inbox,
        store=RedisTrials(ground.store),
        events=telling,
        languages=lambda: tenancy.tenants.languages,
        slots=tuning.slots,
    )
    canaries = Canaries(config, parts)
    tuning.releases.connect(tuning.publisher, canaries)
    return Trials(canaries, traffic, telling, inbox)
