"""Trainings of reward models: how they end, what they leave, who is in whose way."""

import asyncio
from pathlib import Path

import pytest

from agent.errors import Conflict, EngineDead, NotFound, StoreError, TooFewPairs, TrainerFailed
from service.reward_models.fakes import FakeTrainingProcess
from service.reward_models.records import TrainingState
from service.reward_models.trainings import TrainingRequest
from tests.planted_pairs import planted_pairs
from tests.service.reward_models.desks import CONFIG, Rig


def left_overs(root: Path) -> list[str]:
    return [path.name for path in (root / "rewards" / "de").glob(".*")]


async def test_a_better_model_is_kept_and_activated(tmp_path: Path) -> None:
    """8 of 8 held-out prompts beat chance at p = 1/256; the metrics hear of it, and no pair is left on the disk."""
    rig = Rig(tmp_path)
    status = await rig.train()
    assert (status.state, status.version, status.step, status.num_steps) == (TrainingState.ACCEPTED, 1, 3, 3)
    assert status.reason is not None
    assert "p = 0.003906, is accepted" in status.reason
    models = await rig.desk.of("de")
    assert (models.active, models.active_accuracy) == (1, 1.0)
    assert rig.loaded.activated == [("de", 1)]
    assert [ended.state for ended in rig.ended] == [TrainingState.ACCEPTED]
    assert [(told.active, told.active_accuracy) for told in rig.active] == [(1, 1.0)]
    assert left_overs(tmp_path) == []


async def test_an_equal_model_is_kept_as_rejected_and_never_activated(tmp_path: Path) -> None:
    """Its report says why; activating it by hand is refused with that reason."""
    process = FakeTrainingProcess(baseline_ranks_right=lambda pair: True)
    rig = Rig(tmp_path, process=process)
    await rig.train()
    status = await rig.train()
    assert (status.state, status.version) == (TrainingState.REJECTED, 2)
    models = await rig.desk.of("de")
    assert (models.active, [model.accepted for model in models.versions]) == (1, [False, True])
    assert models.find(2).report.verdict.baseline == 1
    with pytest.raises(Conflict, match="2 was rejected: it ranks 0 held-out prompts better than version 1"):
        await rig.desk.activate("de", 2)
    assert rig.loaded.activated == [("de", 1)]


async def test_the_first_model_must_beat_chance(tmp_path: Path) -> None:
    """A coin's ranking is rejected, and the language stays without a reward model."""
    rig = Rig(tmp_path, process=FakeTrainingProcess(ranks_right=lambda pair: int(pair.id[5:]) % 2 == 0))
    assert (await rig.train()).state is TrainingState.REJECTED
    assert (await rig.desk.of("de")).active is None


async def test_the_request_goes_before_the_configuration(tmp_path: Path) -> None:
    """What is not chosen is configured; the order names the active version as what must be beaten."""
    process = FakeTrainingProcess()
    rig = Rig(tmp_path, process=process)
    await rig.train()
    await rig.train(TrainingRequest(epochs=7, rank=2, seed=5))
    first, second = process.orders
    assert (first.baseline, first.version, first.settings.epochs, first.settings.seed) == (None, 1, 2, 0)
    assert second.baseline == tmp_path / "rewards" / "de" / "v1"
    assert (second.version, second.settings.epochs, second.settings.rank, second.settings.seed) == (2, 7, 2, 5)
    assert second.settings.learning_rate == rig.config.learning_rate


async def test_too_few_pairs_start_nothing(tmp_path: Path) -> None:
    """The counts are told at once, no record is made, and the next training is free to start."""
    rig = Rig(tmp_path, pairs=planted_pairs(3, 8))
    with pytest.raises(TooFewPairs, match=r"8 training pairs .* got 3 \(comparison 1, edit 1, rating 1\)"):
        await rig.train()
    assert await rig.desk.trainings() == []
    rig.source.failure = StoreError("the store is away")
    with pytest.raises(StoreError):
        await rig.train()


async def test_one_training_at_a_time(tmp_path: Path) -> None:
    """Whatever the language; the refusal names the one that runs."""
    rig = Rig(tmp_path, process=FakeTrainingProcess(holds=asyncio.Event()))
    started = await rig.desk.train("de", TrainingRequest())
    with pytest.raises(Conflict) as refused:
        await rig.desk.train("pl", TrainingRequest())
    assert refused.value.blocking_id == started.id
    assert (await rig.desk.cancel(started.id)).state is TrainingState.CANCELLED


async def test_a_cancelled_training_leaves_no_version(tmp_path: Path) -> None:
    """Neither a folder nor half of one; cancelling again changes nothing."""
    process = FakeTrainingProcess(holds=asyncio.Event())
    rig = Rig(tmp_path, process=process)
    started = await rig.desk.train("de", TrainingRequest())
    await process.stepped.wait()
    assert (await rig.desk.training(started.id)).step == 3
    cancelled = await rig.desk.cancel(started.id)
    assert (cancelled.state, cancelled.reason) == (TrainingState.CANCELLED, "cancelled by an operator")
    assert cancelled.ended_at is not None
    assert await rig.desk.cancel(started.id) == cancelled
    assert left_overs(tmp_path) == []
    assert (await rig.desk.of("de")).versions == ()


async def test_a_training_that_takes_too_long_fails_and_lets_the_next_one_start(tmp_path: Path) -> None:
    """Its process is ended, and the reason says how far it had come and what to change."""
    process = FakeTrainingProcess(holds=asyncio.Event())
    rig = Rig(tmp_path, process=process, config=CONFIG.model_copy(update={"max_duration_s": 0.2}))
    status = await rig.train()
    assert (status.state, status.reason) == (
        TrainingState.FAILED,
        (
            "a training must end within rewards.training.max_duration_s (0.2 s), got to step 3 of 3: "
            "raise it or rewards.training.num_threads, or train fewer epochs"
        ),
    )
    assert status.ended_at is not None
    assert left_overs(tmp_path) == []
    process.holds = None
    assert (await rig.train()).state is TrainingState.ACCEPTED


async def test_the_end_of_the_node_interrupts(tmp_path: Path) -> None:
    """The record says so; nothing goes on by itself."""
    rig = Rig(tmp_path, process=FakeTrainingProcess(holds=asyncio.Event()))
    started = await rig.desk.train("de", TrainingRequest())
    await rig.trainings.close()
    assert (await Rig(tmp_path).desk.training(started.id)).state is TrainingState.INTERRUPTED
    assert left_overs(tmp_path) == []


async def test_what_a_killed_node_left_is_tidied_up(tmp_path: Path) -> None:
    """A node that had no time to say anything: the next one ends the record and removes people's texts."""
    process = FakeTrainingProcess(holds=asyncio.Event())
    killed = Rig(tmp_path, process=process)
    started = await killed.desk.train("de", TrainingRequest())
    await process.stepped.wait()
    assert left_overs(tmp_path) == [f".training-{started.id}"]
    rig = Rig(tmp_path)
    rig.trainings.open()
    status = await rig.desk.training(started.id)
    assert (status.state, status.reason) == (TrainingState.INTERRUPTED, "the node stopped during the training")
    assert left_overs(tmp_path) == []
    await killed.trainings.close()


async def test_a_failed_training_says_why(tmp_path: Path) -> None:
    """And the next one gets the same number, since no version came of it."""
    process = FakeTrainingProcess(error=TrainerFailed("the training's process ended with exit code -9"))
    rig = Rig(tmp_path, process=process)
    status = await rig.train()
    assert (status.state, status.reason) == (TrainingState.FAILED, "the training's process ended with exit code -9")
    process.error = None
    assert (await rig.train()).version == 1


async def test_an_accepted_model_that_cannot_be_loaded_is_kept(tmp_path: Path) -> None:
    """It can be activated later; until then what judged before still does."""
    rig = Rig(tmp_path)
    rig.loaded.error = EngineDead("the engine is restarting")
    status = await rig.train()
    assert status.state is TrainingState.FAILED
    assert status.reason == "version 1 was accepted and could not be activated: the engine is restarting"
    assert (await rig.desk.of("de")).active is None
    rig.loaded.error = None
    assert (await rig.desk.activate("de", 1)).active == 1


async def test_without_a_part_that_judges_nothing_is_trained(tmp_path: Path) -> None:
    """A version that nobody would ask is not made; the refusal says what to configure."""
    with pytest.raises(Conflict, match=r"configure a table \[rewards.models"):
        await Rig(tmp_path, model=None).train()


async def test_an_unknown_training_does_not_exist(tmp_path: Path) -> None:
    """To see or to cancel."""
    rig = Rig(tmp_path)
    for call in (rig.desk.training, rig.desk.cancel):
        with pytest.raises(NotFound, match="there is no training training_9"):
            await call("training_9")
