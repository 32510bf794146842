"""How a node learns: journal, policies and the runs that make them.

journal ─► claims ─► loop ─► gate ─► publisher ─► engine
                      └ runs, checkpoints, ledger
"""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from rewards.second_opinion import second_opinion
from service.assembly.engine_room import EngineRoom
from service.assembly.ground import Ground
from service.assembly.judges import Judges
from service.journal import RedisJournal
from service.metering import count_run
from service.routable_slots import RoutableSlots
from service.telemetry import Metrics
from service.tenant_policies import NodeReleases, TenantPolicies
from service.tenants import Tenants
from service.webhooks.announcements import Announcements
from trainer.adapters import AdapterSlots, num_routable
from trainer.checkpoint import Checkpoints
from trainer.claim_log import ClaimLog
from trainer.evaluation import Evaluator
from trainer.footprint import num_adapter_slots
from trainer.live import LiveWeights
from trainer.loop import TuningLoop
from trainer.parity import ParityProbe
from trainer.policy_folder import newest_version, policy_folder, remove_unfinished
from trainer.promotion import promotions
from trainer.publication import Publisher
from trainer.records import RunState, RunStatus
from trainer.rollout import RolloutSampler
from trainer.run_records import RunRecords
from trainer.runs import TuningRuns


@dataclass(frozen=True, slots=True)
class Tuning:
    """Journal, published policies and runs of one node."""

    journal: RedisJournal
    publisher: Publisher
    runs: TuningRuns
    releases: NodeReleases
    """Who gets what is published; connected once there are canaries."""
    tenant_policies: TenantPolicies
    slots: RoutableSlots


async def open_tuning(
    ground: Ground, judges: Judges, room: EngineRoom, tenants: Tenants, announcements: Announcements
) -> Tuning:
    """Close what the last process left open, and make the parts of tuning.

    Raises:
        StoreError: the store does not answer.
    """
    config, metrics = ground.config, ground.metrics
    policies, checkpoints = ground.data_dir / "policies", Checkpoints(ground.data_dir / "runs")
    await asyncio.to_thread(remove_unfinished, policies)
    await _close_interrupted(ground, checkpoints, newest_version(policies), announcements)
    journal = RedisJournal(
        ground.store,
        config.store,
        on_corrupt=metrics.journal_corrupt,
        is_served=lambda tenant: tenants.get(tenant) is not None,
    )
    placement = _placement(ground, room, policies)
    probe = ParityProbe(room.engine, room.trainer, room.encoder, max_mean=config.tuning.parity_mean)
    slots = RoutableSlots(num_routable(num_adapter_slots(config.tuning)))
    tenant_policies = await _tenant_policies(ground, room, tenants, slots)
    releases = NodeReleases(tenant_policies, through_canary=config.canary.on_publish)
    publisher = Publisher(
        room.trainer, placement, room.engine, ground.ledger, probe, policies, config.engine.model, releases
    )
    claims = ClaimLog(journal)
    runs = TuningRuns(
        _loop(ground, judges, room, journal, claims, placement, publisher),
        ground.ledger,
        config.tuning,
        tenants.languages,
        metrics.tuning.observe_step,
        partial(_run_ended, metrics, announcements),
        on_evaluation=metrics.tuning.observe_evaluation,
        records=RunRecords(checkpoints, claims, config.engine.model),
        languages_of=lambda tenant: () if (found := tenants.get(tenant)) is None else tuple(found.languages),
    )
    tenants.follow(lambda _: runs.use_languages(tenants.languages))
    return Tuning(journal, publisher, runs, releases, tenant_policies, slots)


async def _tenant_policies(ground: Ground, room: EngineRoom, tenants: Tenants, slots: RoutableSlots) -> TenantPolicies:
    """What the ledger says that tenants have for themselves, and what they are pinned to."""
    policies = TenantPolicies(ground.ledger, room.routes, slots)
    await policies.open()
    tenants.follow(policies.use_tenants)
    tenants.follow(room.routes.use_pins)
    return policies


async def _close_interrupted(
    ground: Ground, checkpoints: Checkpoints, newest_policy: int, announcements: Announcements
) -> None:
    ledger, now = ground.ledger, datetime.now(UTC)
    await ledger.begin(now, last_version=max(newest_policy, checkpoints.newest_version()))
    for stopped in await ledger.close_interrupted(now, "the node stopped during the run"):
        announcements.run_ended(stopped)
    checkpoints.keep_only(run.id for run in await ledger.runs() if run.state is RunState.INTERRUPTED)


def _placement(ground: Ground, room: EngineRoom, policies: Path) -> AdapterSlots | LiveWeights:
    folder_of, tuning = partial(policy_folder, policies), ground.config.tuning
    if tuning.method == "full":
        return LiveWeights(room.trainer, room.engine, folder_of=folder_of)
    slots = AdapterSlots(
        room.trainer,
        room.engine,
        capacity=num_adapter_slots(tuning),
        folder_of=folder_of,
        routed=room.routes.versions,
    )
    room.routes.serve_from(slots.holds)
    return slots


def _loop(
    ground: Ground,
    judges: Judges,
    room: EngineRoom,
    journal: RedisJournal,
    claims: ClaimLog,
    placement: AdapterSlots | LiveWeights,
    publisher: Publisher,
) -> TuningLoop:
    config = ground.config
    sampler = RolloutSampler(room.engine)
    evaluator = Evaluator(
        journal=journal,
        sampler=sampler,
        panel=judges.panel,
        admission=room.gate,
        second_opinion=second_opinion(),
        temperature=config.agent.temperature,
        config=config.tuning.gate,
    )
    return TuningLoop(
        journal=claims,
        sampler=sampler,
        panel=judges.panel,
        trainer=publisher.trainer,
        ledger=ground.ledger,
        start_promotion=promotions(placement, publisher, evaluator),
        admission=room.gate,
    )


def _run_ended(metrics: Metrics, announcements: Announcements, status: RunStatus) -> None:
    count_run(metrics, status)
    announcements.run_ended(status)
