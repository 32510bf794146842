"""A publication is a transaction: its order, and what each failure leaves behind."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from agent.errors import ColoqError, Conflict, NotFound, ParityFailed, PublicationFailed, StoreError
from agent.fakes import CharEncoder, FakeEngine
from trainer.adapters import AdapterSlots
from trainer.fakes import FakeSink, FakeTrainer, MemoryLedger
from trainer.live import LiveWeights
from trainer.parity import ParityProbe
from trainer.policy_folder import policy_folder
from trainer.publication import Publisher
from trainer.records import PolicyRecord


class _Node:
    """A publisher over fakes that write into one list of events."""

    def __init__(self, root: Path) -> None:
        self.trainer = FakeTrainer()
        self.events = self.trainer.events
        self.sink = FakeSink(events=self.events)
        self.ledger = MemoryLedger(events=self.events)
        folder_of = partial(policy_folder, root)
        self.slots = AdapterSlots(self.trainer, self.sink, capacity=4, folder_of=folder_of)
        engine = FakeEngine(lambda request: "abc")
        probe = ParityProbe(engine, self.trainer, CharEncoder(), max_mean=0.1)
        self.publisher = Publisher(self.trainer, self.slots, self.sink, self.ledger, probe, root, "tiny")
        self.root = root

    async def published(self, *versions: int, base_model: str = "tiny", method: str = "adapter") -> None:
        """Versions that an earlier process has published; the last one is active in the ledger."""
        for version in versions:
            folder = policy_folder(self.root, version)
            folder.mkdir(parents=True)
            manifest = {"version": version, "parent": 0, "run_id": "run_a", "base_model": base_model, "method": method}
            (folder / "manifest.json").write_text(json.dumps(manifest))
            await self.ledger.record(_record(version))
            await self.ledger.set_active_version(version)
        self.events.clear()

    async def publish(self, version: int) -> PolicyRecord:
        """Publish a candidate that a step has just made."""
        self.trainer.kept.add(version)
        await self.slots.install(version)
        self.events.clear()
        return await self.publisher.publish(version, parent=0, run_id="run_b", evaluation=None)


def _record(version: int) -> PolicyRecord:
    return PolicyRecord(version, "adapter", 0, "run_a", datetime(2026, 1, 1, tzinfo=UTC), "ab", None, None)


@pytest.fixture
def node(tmp_path: Path) -> _Node:
    return _Node(tmp_path)


async def test_a_publication_goes_in_order(node: _Node) -> None:
    """Probe, write, read back, record, and only then the flip: first where a restart reads it, then for requests."""
    record = await node.publish(5)
    assert node.events == ["logprobs", "save 5", "verify v5", "record 5", "set_active 5", "activate 5"]
    assert node.publisher.active_version == 5
    assert (record.version, record.parent, record.run_id, record.sha256) == (5, 0, "run_b", "sha256 of v5")
    assert record.parity is not None
    assert record.parity.mean == 0.0
    assert await node.ledger.policy(5) == record
    assert [policy.version for policy in await node.publisher.list()] == [5, 0]


@pytest.mark.parametrize("failing", ["logprobs", "save", "verify"])
async def test_a_failure_before_the_record_leaves_nothing(node: _Node, failing: str) -> None:
    """The previous version serves, and neither ledger nor restart knows of the candidate."""
    await node.published(3)
    node.sink.activate(3)
    node.trainer.failures[failing] = PublicationFailed("no")
    with pytest.raises(PublicationFailed):
        await node.publish(5)
    assert (node.sink.active_version, await node.ledger.active_version()) == (3, 3)
    assert [policy.version for policy in await node.ledger.policies()] == [3, 0]


async def test_a_failed_parity_probe_writes_nothing(node: _Node) -> None:
    """The engine gave every token -0.5, the trainer -1.5."""
    node.trainer.logprob = -1.5
    with pytest.raises(ParityFailed, match="got 1 over"):
        await node.publish(5)
    assert node.events == ["logprobs"]
    assert node.sink.active_version == 0


@pytest.mark.parametrize("failing", ["record", "set_active"])
async def test_a_store_that_fails_leaves_the_previous_version(node: _Node, failing: str) -> None:
    """What requests run on and what a restart would serve stay the same version."""
    node.ledger.failures[failing] = StoreError("no")
    with pytest.raises(StoreError):
        await node.publish(5)
    assert (node.sink.active_version, await node.ledger.active_version()) == (0, 0)


class _ForgetfulTrainer(FakeTrainer):
    """Reads back something else than it wrote."""

    async def verify(self, folder: Path) -> str:
        await super().verify(folder)
        return "another digest"


async def test_a_policy_must_read_back_as_it_was_written(tmp_path: Path) -> None:
    """A disk that lies is found before the flip."""
    node = _Node(tmp_path)
    trainer = _ForgetfulTrainer(events=node.events)
    publisher = Publisher(
        trainer,
        node.slots,
        node.sink,
        node.ledger,
        ParityProbe(FakeEngine(lambda request: "abc"), trainer, CharEncoder(), max_mean=0.1),
        tmp_path,
        "tiny",
    )
    trainer.kept.add(5)
    with pytest.raises(PublicationFailed, match="must read back as sha256 of v5…, got another dige"):
        await publisher.publish(5, parent=0, run_id="run_b", evaluation=None)
    assert node.sink.active_version == 0


async def test_rolling_back_loads_what_has_no_slot(node: _Node) -> None:
    """From 5 to the written 3, and on to the base model, which needs no slot."""
    await node.published(3, 5)
    node.sink.activate(5)
    node.events.clear()
    assert (await node.publisher.activate(3)).version == 3
    assert node.events == ["load 3", "install 3", "set_active 3", "activate 3"]
    node.events.clear()
    await node.publisher.activate(0)
    assert node.events == ["set_active 0", "activate 0"]


async def test_only_published_versions_can_be_activated(node: _Node) -> None:
    """A candidate is none yet."""
    with pytest.raises(NotFound):
        await node.publisher.activate(9)
    assert node.events == []


@pytest.mark.parametrize(
    ("method", "error"), [("load", PublicationFailed("v3 is damaged")), ("install", PublicationFailed("no slot"))]
)
async def test_a_failed_rollback_leaves_the_active_version(node: _Node, method: str, error: ColoqError) -> None:
    """The requests of 5 go on."""
    await node.published(3, 5)
    node.sink.activate(5)
    node.trainer.failures[method] = error
    with pytest.raises(PublicationFailed):
        await node.publisher.activate(3)
    assert (node.sink.active_version, await node.ledger.active_version()) == (5, 5)


async def test_a_policy_of_another_model_is_refused(node: _Node) -> None:
    """Its shapes might even fit."""
    await node.published(3, base_model="other")
    with pytest.raises(PublicationFailed, match="policy v3 belongs to other, this node serves tiny"):
        await node.publisher.activate(3)


async def test_a_policy_of_another_method_is_refused(node: _Node) -> None:
    """Whole weights fit no adapter slot."""
    await node.published(3, method="full")
    with pytest.raises(PublicationFailed, match="policy v3 was made by method full, this node's is adapter"):
        await node.publisher.activate(3)
    assert node.events == []


@pytest.fixture
def full(tmp_path: Path) -> _Node:
    """A node of method ``full``."""
    node = _Node(tmp_path)
    live = LiveWeights(node.trainer, node.sink, folder_of=partial(policy_folder, tmp_path))
    node.publisher = replace(node.publisher, placement=live)
    return node


async def test_full_weights_are_read_before_anything_is_flipped(full: _Node) -> None:
    """Then the ledger, then the weights, then what requests are labelled with; back to the base model alike."""
    await full.published(3, method="full")
    assert (await full.publisher.activate(3)).version == 3
    assert full.events == ["load 3", "set_active 3", "announce 3", "restore_live 3", "activate 3"]
    full.events.clear()
    await full.publisher.activate(0)
    assert full.events == ["load_base", "set_active 0", "announce 0", "restore_live 0", "activate 0", "forget 3"]


async def test_full_weights_that_cannot_be_copied_leave_what_served(full: _Node) -> None:
    """A restart would serve it too."""
    await full.published(3, method="full")
    await full.ledger.set_active_version(0)
    full.trainer.failures["restore_live"] = PublicationFailed("no")
    with pytest.raises(PublicationFailed):
        await full.publisher.activate(3)
    assert (full.trainer.live, full.sink.active_version, await full.ledger.active_version()) == (0, 0, 0)


async def test_an_operator_waits_for_a_run_that_trains_the_live_weights(full: _Node) -> None:
    """A roll-back under a run would be overwritten by its next step."""
    await full.published(3, method="full")
    live = full.publisher.placement
    assert isinstance(live, LiveWeights)
    await live.begin("run_b")
    with pytest.raises(Conflict):
        await full.publisher.activate(3)
    assert await full.ledger.active_version() == 3
    assert full.trainer.live == 0


async def test_a_restart_restores_full_weights_before_traffic(full: _Node) -> None:
    """The damaged 5 and the adapter 4 are passed over; a run of the old process is none of this one's."""
    await full.published(2, 3, method="full")
    await full.published(4, method="adapter")
    await full.published(5, method="full")
    (full.root / "v5" / "manifest.json").unlink()
    live = full.publisher.placement
    assert isinstance(live, LiveWeights)
    await live.begin("run_b")
    full.events.clear()
    await full.publisher.restore()
    assert full.events == ["load 3", "announce 3", "restore_live 3", "activate 3"]


async def test_a_restart_serves_the_active_policy(node: _Node) -> None:
    """Slots of the old engine process are forgotten first."""
    await node.published(2, 3, 5)
    await node.ledger.set_active_version(3)
    node.events.clear()
    await node.publisher.restore()
    assert node.events == ["load 3", "install 3", "activate 3"]
    assert node.slots.installed == (3,)


async def test_a_restart_falls_back_to_the_newest_readable_policy(node: _Node, tmp_path: Path) -> None:
    """5 lost its manifest; 3 is the newest below it."""
    await node.published(2, 3, 5)
    (tmp_path / "v5" / "manifest.json").unlink()
    await node.publisher.restore()
    assert node.sink.active_version == 3


async def test_a_restart_without_a_readable_policy_serves_the_base_model(node: _Node) -> None:
    """Nothing can be loaded; the node serves all the same."""
    await node.published(2, 3)
    node.trainer.failures["load"] = PublicationFailed("damaged")
    await node.publisher.restore()
    assert node.events == ["load 3", "load 2", "activate 0"]


async def test_a_request_may_name_what_is_published_and_in_the_engine(node: _Node) -> None:
    """7 is a candidate of a run and 1 has no slot: neither is served. Naming one says which of the two it is."""
    await node.published(1, 2)
    await node.slots.ensure(2)
    node.trainer.kept.add(7)
    await node.slots.install(7)
    assert [record.version for record in await node.publisher.served()] == [2, 0]
    assert (await node.publisher.find_served(2)).version == 2
    with pytest.raises(NotFound, match="policy v1 was published but is not in the engine now"):
        await node.publisher.find_served(1)
    with pytest.raises(NotFound, match="7"):
        await node.publisher.find_served(7)
