"""Who hears of a canary: metrics, the audit log, and the tenants' webhooks."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest

from service.canary.comparison import Difference, Finding
from service.canary.metrics import CanaryMetrics
from service.canary.records import Kind, Outcome, TrialRecord
from service.canary.tally import Measure
from service.canary.telling import CanaryTelling
from service.store import Store
from service.tenancy.audit import MemoryAudit
from service.webhooks.announcements import Announcements
from tests.service.webhooks.rig import Rig

RECORD = TrialRecord("canary-v5-0", Kind.CANARY, 5, 4, ("de",), datetime(2026, 1, 1, tzinfo=UTC), 0.25)
FOUND = Difference("de", Measure.REWARD, 30, 300, 0.5, 0.75, 0.25, 0.1, 0.4, 0.1, Finding.HARM)


async def test_metrics_show_share_requests_difference_and_outcome(store: Store) -> None:
    """And nothing of a canary that has ended but how it ended."""
    rig, registry, audit = Rig(), CollectorRegistry(), MemoryAudit()
    metrics = CanaryMetrics(registry)

    async def active() -> int:
        return 4

    announcements = Announcements(rig.deliveries, store, active)
    telling = CanaryTelling(metrics, announcements, audit)
    await rig.add_endpoint()
    telling.started(RECORD)
    metrics.replied("candidate", "de")
    telling.compared(RECORD, [FOUND])
    running = generate_latest(registry).decode()
    assert "coloq_canary_share 0.25" in running
    assert 'coloq_canary_requests_total{arm="candidate",language="de"} 1.0' in running
    assert 'coloq_canary_difference{language="de",metric="reward"} 0.25' in running
    telling.ended(replace(RECORD, outcome=Outcome.HARMFUL, reason="reward in de", ended_at=RECORD.started_at))
    await telling.close()
    await announcements.close()
    ended = generate_latest(registry).decode()
    assert "coloq_canary_share 0.0" in ended
    assert 'coloq_canary_outcomes_total{outcome="harmful"} 1.0' in ended
    assert 'metric="reward"' not in ended
    assert [(entry.actor, entry.action, entry.request_id) for entry in audit.entries] == [
        ("node", "canary_started", "canary-v5-0"),
        ("node", "canary_harmful", "canary-v5-0"),
    ]
    while await rig.turn():
        pass
    told = {body["type"]: body["data"] for body in (json.loads(sent.body) for sent in rig.sent)}
    assert told["policy.canary.started"]["share"] == 0.25
    assert told["policy.canary.ended"]["outcome"] == "harmful"
    assert "reason" not in told["policy.canary.ended"]
