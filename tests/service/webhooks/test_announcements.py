"""What tenants are told of the node."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from service.ledger import Ledger as ActiveLedger
from service.store import Store
from service.tasks import running
from service.webhooks.announcements import Announcements
from tests.service.webhooks.rig import Rig
from trainer.records import RunRequest, RunState, RunStatus

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Ledger:
    """A ledger that has one version after another active."""

    def __init__(self, versions: Sequence[int]) -> None:
        self._versions = list(versions)

    async def active_version(self) -> int:
        return self._versions.pop(0)


def told(rig: Rig) -> list[tuple[str, object]]:
    bodies = [json.loads(sent.body) for sent in rig.sent]
    return [(body["type"], body["data"]) for body in bodies]


async def drain(rig: Rig) -> None:
    while await rig.turn():
        pass


async def test_every_change_of_policy_is_told_once(rig: Rig, store: Store) -> None:
    """The first look tells nothing; a new version is published, an older one activated; no change is no event."""
    await rig.add_endpoint()
    ledger = Ledger([3, 3, 4, 4, 3, 4])
    for _ in range(6):
        await Announcements(rig.deliveries, store, ledger.active_version).tell_policy()
        await drain(rig)
    assert told(rig) == [
        ("policy.published", {"version": 4, "previous_version": 3}),
        ("policy.activated", {"version": 3, "previous_version": 4}),
        ("policy.activated", {"version": 4, "previous_version": 3}),
    ]


async def test_a_change_is_told_once_though_the_note_of_it_was_lost(rig: Rig, store: Store) -> None:
    """A crash between the event and the note: the same event is queued again, under the same id."""
    await rig.add_endpoint()
    announcements = Announcements(rig.deliveries, store, Ledger([3, 4, 4]).active_version)
    await announcements.tell_policy()
    before = await store.redis.get("node:webhooks:policy")
    assert before is not None
    await announcements.tell_policy()
    await store.redis.set("node:webhooks:policy", before)
    await announcements.tell_policy()
    await drain(rig)
    assert len(rig.sent) == 1


async def test_the_end_of_a_run_is_told_without_its_reason(rig: Rig, store: Store) -> None:
    """A reason may name what belongs to another tenant."""
    await rig.add_endpoint("a", "tuning.run.finished")
    announcements = Announcements(rig.deliveries, store, Ledger([]).active_version)
    status = RunStatus("run_1", RunState.FAILED, RunRequest(), NOW, NOW, 20, (), (4,), None, "tenant globex …")
    announcements.run_ended(status)
    announcements.run_ended(status)
    await announcements.close()
    await drain(rig)
    assert told(rig) == [("tuning.run.finished", {"id": "run_1", "state": "failed", "published": [4]})]


async def test_an_interrupted_run_is_told_once_it_has_ended(rig: Rig, store: Store) -> None:
    """A node that stops interrupts its run, the next one resumes it: one event, of how it ended."""
    await rig.add_endpoint("a", "tuning.run.finished")
    announcements = Announcements(rig.deliveries, store, Ledger([]).active_version)
    for state in (RunState.INTERRUPTED, RunState.SUCCEEDED):
        announcements.run_ended(RunStatus("run_1", state, RunRequest(), NOW, NOW, 20, (), (4,), None, None))
    await announcements.close()
    await drain(rig)
    assert told(rig) == [("tuning.run.finished", {"id": "run_1", "state": "succeeded", "published": [4]})]


async def test_a_switch_is_told_at_once(rig: Rig, store: Store) -> None:
    """The ledger says that the active version may be another one; the next look by itself comes after half a minute."""
    await rig.add_endpoint()
    ledger = ActiveLedger(store)
    announcements = Announcements(rig.deliveries, store, ledger.active_version)
    ledger.on_active_version(announcements.policy_may_be_another)
    await announcements.tell_policy()
    async with running(announcements.watch_policy(), name="announcements"), asyncio.timeout(5):
        await ledger.set_active_version(4)
        while not await rig.turn():  # noqa: ASYNC110 - nothing tells that an event was queued
            await asyncio.sleep(0.01)
    assert told(rig) == [("policy.published", {"version": 4, "previous_version": 0})]
