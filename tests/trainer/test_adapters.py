"""Which version gives its slot up, and when."""

import asyncio
from pathlib import Path

import pytest

from agent.errors import PublicationFailed
from trainer.adapters import AdapterSlots, num_routable
from trainer.fakes import FakeSink, FakeTrainer


class _Node:
    """Slots over a trainer and a sink that write into one list of events."""

    def __init__(self, capacity: int = 4) -> None:
        self.trainer = FakeTrainer()
        self.events = self.trainer.events
        self.sink = FakeSink(events=self.events)
        self.slots = AdapterSlots(
            self.trainer, self.sink, capacity=capacity, folder_of=lambda version: Path(f"v{version}")
        )

    async def fill(self, *versions: int) -> None:
        for version in versions:
            self.trainer.kept.add(version)
            await self.slots.install(version)
        self.events.clear()


async def test_the_oldest_idle_version_makes_room_once_drained() -> None:
    """1 is active and 4 the newest, so 2 goes: first its requests end, then its slot is freed, then 5 fills one."""
    node = _Node()
    await node.fill(1, 2, 3, 4)
    node.sink.activate(1)
    node.trainer.kept.add(5)
    node.events.clear()
    await node.slots.install(5)
    assert node.events == ["drained 2", "remove 2", "install 5"]
    assert node.slots.installed == (1, 3, 4, 5)


async def test_requests_in_flight_are_waited_for() -> None:
    """While one runs on 1, nothing is removed."""
    node = _Node()
    await node.fill(1, 2, 3, 4)
    node.sink.occupy(1)
    node.trainer.kept.add(5)
    installing = asyncio.create_task(node.slots.install(5))
    await asyncio.sleep(0)
    assert node.events == []
    node.sink.finish(1)
    await installing
    assert node.events == ["drained 1", "remove 1", "install 5"]


async def test_the_newest_version_is_kept_when_older_ones_are_brought_back() -> None:
    """14 is a run's candidate; rolling back to six older ones in turn evicts everything but it and the active one."""
    node = _Node()
    await node.fill(11, 12, 13, 14)
    for version in (1, 2, 3, 4, 5, 6):
        await node.slots.ensure(version)
        node.sink.activate(version)
        assert {14, version} <= set(node.slots.installed)
    assert len(node.slots.installed) == 4


async def test_a_version_that_is_to_be_activated_is_kept() -> None:
    """Between its loading and its activation a run may install candidates."""
    node = _Node()
    await node.slots.ensure(1)
    await node.fill(2, 3, 4, 5, 6)
    assert 1 in node.slots.installed


async def test_a_version_without_a_slot_is_read_from_its_folder() -> None:
    """Once; after that, and for the base model, there is nothing to do."""
    node = _Node()
    for version in (0, 3, 3):
        await node.slots.ensure(version)
    assert node.events == ["load 3", "install 3"]


async def test_an_eviction_ends_before_its_version_is_asked_for_again() -> None:
    """2 is on its way out while an operator wants it: it is loaded again rather than activated without a slot."""
    node = _Node()
    await node.fill(1, 2, 3, 4)
    node.sink.activate(1)
    node.sink.occupy(2)
    node.trainer.kept.add(5)
    installing = asyncio.create_task(node.slots.install(5))
    await asyncio.sleep(0)
    ensuring = asyncio.create_task(node.slots.ensure(2))
    await asyncio.sleep(0)
    node.sink.finish(2)
    await asyncio.gather(installing, ensuring)
    assert 2 in node.slots.installed
    assert set(node.slots.installed) == set(node.trainer.installed)


async def test_discarding_frees_kept_weights_too() -> None:
    """A version that a failed step left without a slot holds memory in the engine process."""
    node = _Node()
    node.trainer.kept.add(7)
    await node.slots.discard(7)
    assert node.trainer.kept == set()


async def test_a_new_engine_has_empty_slots() -> None:
    """What was installed in the old process must be loaded again; a removal under way does not trip over it."""
    node = _Node()
    await node.fill(1)
    node.sink.occupy(1)
    discarding = asyncio.create_task(node.slots.discard(1))
    await asyncio.sleep(0)
    node.slots.forget_all()
    node.sink.finish(1)
    await discarding
    assert node.slots.installed == ()


async def test_a_damaged_folder_takes_no_slot() -> None:
    """The failure reaches the caller and nothing is installed."""
    node = _Node()
    node.trainer.failures["load"] = PublicationFailed("v3 is damaged")
    with pytest.raises(PublicationFailed):
        await node.slots.ensure(3)
    assert node.slots.installed == ()


def test_three_slots_are_too_few() -> None:
    """Active, newest and to be activated are never evicted, so a fourth one must exist."""
    with pytest.raises(ValueError, match="at least 4"):
        _Node(capacity=3)


async def test_a_version_that_is_about_to_go_takes_no_new_requests() -> None:
    """While the last request runs on 1 it is not held any more, so that none begins after the drain; the base model
    always is."""
    node = _Node()
    await node.fill(1, 2, 3, 4)
    assert [node.slots.holds(version) for version in (0, 1, 4, 9)] == [True, True, True, False]
    node.sink.occupy(1)
    node.trainer.kept.add(5)
    installing = asyncio.create_task(node.slots.install(5))
    await asyncio.sleep(0)
    assert not node.slots.holds(1)
    node.sink.finish(1)
    await installing
    assert [node.slots.holds(version) for version in (1, 5)] == [False, True]


async def test_a_version_that_requests_are_routed_to_keeps_its_slot() -> None:
    """2 would have to go; it is pinned, so 3 goes. Seven slots leave three for such versions."""
    node = _Node(5)
    node.slots = AdapterSlots(
        node.trainer, node.sink, capacity=5, folder_of=lambda version: Path(f"v{version}"), routed=lambda: {2}
    )
    await node.fill(1, 2, 3, 4, 5)
    node.sink.activate(1)
    node.trainer.kept.add(6)
    node.events.clear()
    await node.slots.install(6)
    assert node.events == ["drained 3", "remove 3", "install 6"]
    assert num_routable(7) == 3
