"""The shipped fakes keep the contracts of their ports."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import NotFound, PublicationFailed, TrainerFailed
from tests.trainer.samples import SETTINGS, completion
from trainer.batch import build_batch
from trainer.fakes import FakeSink, FakeTrainer, MemoryLedger
from trainer.group import TrainingSequence
from trainer.ports import PolicyLedger, PolicyMetadata, PolicySink, TrainerPort


def test_fakes_are_their_ports() -> None:
    """Type checkers hold the fakes to the Protocols through these assignments."""
    trainer: TrainerPort = FakeTrainer()
    sink: PolicySink = FakeSink()
    ledger: PolicyLedger = MemoryLedger()
    assert all((trainer, sink, ledger))


async def test_only_what_is_kept_can_be_installed_or_saved() -> None:
    """As in the engine process."""
    trainer = FakeTrainer()
    with pytest.raises(PublicationFailed):
        await trainer.install(1)
    with pytest.raises(PublicationFailed):
        await trainer.save(Path("v1"), PolicyMetadata(1, 0, "run_a", "tiny"))
    assert await trainer.load(Path("v1"), 1) == await trainer.save(Path("v1"), PolicyMetadata(1, 0, "run_a", "tiny"))
    await trainer.install(1)
    assert trainer.installed == [1]


async def test_full_weights_go_live_one_step_at_a_time() -> None:
    """A step must be published before the next one; only what is live can be kept, only what is kept restored."""
    trainer = FakeTrainer()
    await trainer.begin(replace(SETTINGS, method="full"), None)
    batch = build_batch([TrainingSequence(completion(), 0.5, "de")])
    await trainer.step(batch, 1)
    with pytest.raises(TrainerFailed, match="version 1 must be published"):
        await trainer.step(batch, 2)
    with pytest.raises(TrainerFailed, match="only the newest step"):
        await trainer.publish_live(2)
    with pytest.raises(TrainerFailed, match="version 0 is live"):
        await trainer.keep_live(1)
    await trainer.keep_live(0)
    assert await trainer.publish_live(1) == 1.5
    with pytest.raises(PublicationFailed, match="version 1 is not kept"):
        await trainer.restore_live(1)
    await trainer.restore_live(0)
    assert (trainer.live, trainer.kept) == (0, {0})
    await trainer.forget(0)
    assert trainer.kept == set()


async def test_a_scripted_failure_is_raised_after_it_is_recorded() -> None:
    """What was tried is in the events; nothing came of it."""
    trainer = FakeTrainer()
    trainer.failures["install"] = TrainerFailed("no")
    with pytest.raises(TrainerFailed):
        await trainer.install(1)
    assert (trainer.events, trainer.installed) == (["install 1"], [])


async def test_the_ledger_begins_with_the_base_model() -> None:
    """Versions rise from 1; what was never published is not found."""
    ledger = MemoryLedger()
    assert [await ledger.next_version(), await ledger.next_version()] == [1, 2]
    assert [record.version for record in await ledger.policies()] == [0]
    with pytest.raises(NotFound):
        await ledger.policy(1)
    with pytest.raises(NotFound):
        await ledger.run("run_a")


async def test_a_checkpoint_is_what_a_run_goes_on_from(tmp_path: Path) -> None:
    """Its version is kept, ready to install; the steps before count on. By method full it is ready to go live."""
    trainer = FakeTrainer()
    await trainer.begin(SETTINGS, None)
    await trainer.step(build_batch([TrainingSequence(completion(), 0.5, "de")]), 1)
    await trainer.checkpoint(tmp_path)
    other, full = FakeTrainer(), FakeTrainer()
    await other.resume(SETTINGS, tmp_path, 1)
    assert (other.num_steps_before, other.kept) == (1, {1})
    await full.resume(replace(SETTINGS, method="full"), tmp_path, 1)
    assert (full.unpublished, full.kept) == (1, set())
