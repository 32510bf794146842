"""Whose weights are live, who may change them, and what is kept to go back to."""

import asyncio
from pathlib import Path

import pytest

from agent.errors import Conflict, EngineDead, PublicationFailed
from trainer.fakes import FakeSink, FakeTrainer
from trainer.live import LiveWeights


class _Node:
    """Live weights over a trainer and a sink that write into one list of events."""

    def __init__(self) -> None:
        self.trainer = FakeTrainer()
        self.events = self.trainer.events
        self.sink = FakeSink(events=self.events)
        self.live = LiveWeights(self.trainer, self.sink, folder_of=lambda version: Path(f"v{version}"))

    async def train(self, run_id: str, *versions: int) -> None:
        """A run that publishes these."""
        await self.live.begin(run_id)
        for version in versions:
            self.trainer.unpublished = version
            await self.live.publish(run_id, version)
        self.events.clear()


@pytest.fixture
def node() -> _Node:
    return _Node()


async def test_a_version_is_read_and_then_copied(node: _Node) -> None:
    """What is announced first is labelled conservatively; a second switch to the same version does nothing."""
    await node.live.ensure(3)
    await node.live.switch(3)
    await node.live.ensure(3)
    await node.live.switch(3)
    assert node.events == ["load 3", "announce 3", "restore_live 3", "activate 3"]
    assert (node.trainer.live, node.sink.active_version) == (3, 3)


async def test_a_new_engine_needs_no_copy_of_the_base_model(node: _Node) -> None:
    """It has just loaded it."""
    await node.live.ensure(0)
    await node.live.switch(0)
    assert node.events == []


async def test_going_back_to_the_base_model_reads_it_again(node: _Node) -> None:
    """Its weights were written over; the copy of the version that served is given up."""
    await node.live.ensure(3)
    await node.live.switch(3)
    node.events.clear()
    await node.live.ensure(0)
    await node.live.switch(0)
    assert node.events == ["load_base", "announce 0", "restore_live 0", "activate 0", "forget 3"]
    assert node.trainer.kept == {0}


async def test_a_run_begins_with_a_copy_of_what_serves(node: _Node) -> None:
    """Not with a second one when there is one."""
    assert await node.live.begin("run_a") == 0
    assert node.events == ["keep_live 0"]
    await node.live.release("run_a")
    await node.live.begin("run_b")
    assert node.events == ["keep_live 0"]


async def test_what_a_run_did_not_settle_on_is_rolled_back(node: _Node) -> None:
    """Versions 1 and 2 went live, 2 is the last good one, 3 went live after it."""
    await node.train("run_a", 1, 2)
    await node.live.switch(2)
    assert node.events == ["forget 0", "keep_live 2"]
    node.trainer.unpublished = 3
    await node.live.publish("run_a", 3)
    node.events.clear()
    await node.live.release("run_a")
    assert node.events == ["announce 2", "restore_live 2", "activate 2"]
    assert node.trainer.live == 2


async def test_a_run_that_settled_on_its_newest_leaves_everything(node: _Node) -> None:
    """There is nothing to go back to."""
    await node.train("run_a", 1)
    await node.live.switch(1)
    node.events.clear()
    await node.live.release("run_a")
    assert node.events == []


async def test_a_publication_that_failed_is_rolled_back_too(node: _Node) -> None:
    """Nobody knows how far it came."""
    await node.train("run_a")
    node.trainer.failures["publish_live"] = PublicationFailed("no")
    with pytest.raises(PublicationFailed):
        await node.live.publish("run_a", 1)
    node.events.clear()
    await node.live.release("run_a")
    assert node.events == ["announce 0", "restore_live 0", "activate 0"]


async def test_nobody_else_changes_the_weights_that_a_run_trains(node: _Node) -> None:
    """Neither an operator, who is told what to stop, nor a second run; afterwards both may."""
    await node.train("run_a", 1)
    for attempt in (node.live.ensure(3), node.live.switch(3), node.live.begin("run_b")):
        with pytest.raises(Conflict, match="stop it first") as raised:
            await attempt
        assert raised.value.blocking_id == "run_a"
    assert node.events == []
    await node.live.release("run_a")
    await node.live.ensure(3)
    assert await node.live.begin("run_b") == 0


async def test_a_copy_that_failed_leaves_what_served(node: _Node) -> None:
    """The label is set back, and the version can be tried again."""
    await node.live.ensure(3)
    node.trainer.failures["restore_live"] = PublicationFailed("no")
    with pytest.raises(PublicationFailed):
        await node.live.switch(3)
    assert (node.trainer.live, node.sink.active_version) == (0, 0)
    node.trainer.failures.clear()
    await node.live.switch(3)
    assert node.trainer.live == 3


async def test_a_run_of_a_dead_engine_touches_nothing_of_the_new_one(node: _Node) -> None:
    """It may neither publish nor roll back; the new engine takes versions at once."""
    await node.train("run_a", 1)
    node.live.forget_all()
    await node.live.ensure(5)
    await node.live.switch(5)
    node.events.clear()
    with pytest.raises(EngineDead, match="replaced since the run began"):
        await node.live.publish("run_a", 2)
    await node.live.release("run_a")
    assert node.events == []


async def test_one_change_at_a_time() -> None:
    """A roll-back waits for the copy under way."""

    class Slow(FakeTrainer):
        reached, proceed = asyncio.Event(), asyncio.Event()

        async def restore_live(self, version: int) -> None:
            self.reached.set()
            await self.proceed.wait()
            await super().restore_live(version)

    trainer = Slow()
    live = LiveWeights(trainer, FakeSink(), folder_of=lambda version: Path(f"v{version}"))
    await live.ensure(3)
    switching = asyncio.create_task(live.switch(3))
    await trainer.reached.wait()
    ensuring = asyncio.create_task(live.ensure(4))
    await asyncio.sleep(0)
    assert trainer.events == ["load 3"]
    trainer.proceed.set()
    await asyncio.gather(switching, ensuring)
    assert trainer.events == ["load 3", "restore_live 3", "load 4"]


async def test_the_active_version_alone_is_held(tmp_path: Path) -> None:
    """There is one copy of the weights: a request that names another version cannot be answered by it."""
    sink = FakeSink()
    live = LiveWeights(FakeTrainer(), sink, folder_of=lambda version: tmp_path / f"v{version}")
    sink.activate(3)
    assert [live.holds(version) for version in (0, 3, 4)] == [False, True, False]
