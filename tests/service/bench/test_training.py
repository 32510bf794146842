"""Continuous training and publications, with the product's own fakes in place of an engine."""

import asyncio
import math
from itertools import count, pairwise
from pathlib import Path

import numpy as np

from agent.errors import TrainerFailed
from service.bench.control import BatchShape, PublishOrder, TrainOrder
from service.bench.publications import Publications
from service.bench.training import BenchLearner, ContinuousTraining, synthetic_batch
from service.bench.versions import AdapterVersions, FullVersions
from trainer.adapters import AdapterSlots
from trainer.batch import TrainingBatch
from trainer.config import TuningConfig
from trainer.fakes import FakeSink, FakeTrainer
from trainer.live import LiveWeights
from trainer.pace import Pulse
from trainer.plan import RunPlan
from trainer.ports import StepResult
from trainer.records import RunRequest

SHAPE = BatchShape(batch_size=4, length=32, reply_tokens=8)


class BusyTrainer(FakeTrainer):
    """Steps take a moment, as a learner's do."""

    def __init__(self) -> None:
        super().__init__()
        self.stepped_often = asyncio.Event()

    async def step(self, batch: TrainingBatch, version: int) -> StepResult:
        """See TrainerPort.step."""
        await asyncio.sleep(0.001)
        if len(self.batches) == 20:
            self.stepped_often.set()
        return await super().step(batch, version)


def learner(trainer: FakeTrainer, sink: FakeSink, *, method: str = "adapter") -> BenchLearner:
    numbers = count(1)
    settings = RunPlan.of(RunRequest(), TuningConfig.model_validate({"method": method}), ()).learner

    async def next_version() -> int:
        return next(numbers)

    def folder_of(version: int) -> Path:
        raise AssertionError(f"version {version} must not be read from disk")

    if method == "full":
        versions: AdapterVersions | FullVersions = FullVersions(
            trainer, LiveWeights(trainer, sink, folder_of=folder_of)
        )
    else:
        versions = AdapterVersions(trainer, AdapterSlots(trainer, sink, capacity=4, folder_of=folder_of))
    return BenchLearner(trainer, settings, versions, next_version, vocab_size=100)


def test_a_synthetic_batch_has_exactly_its_shape() -> None:
    """4 sequences of 32 tokens, the last 8 of each trained on, behaviour uniform over 100 ids, advantages balanced."""
    batch = synthetic_batch(SHAPE, 100, seed=0)
    assert batch.token_ids.shape == (4, 32)
    assert batch.num_tokens == 4 * 8
    assert batch.mask[:, 24:].all()
    assert batch.token_ids.min() >= 3
    assert batch.token_ids.max() < 100
    assert np.allclose(batch.behaviour_logprobs[batch.mask], -math.log(100))
    assert batch.advantages.sum() == 0


async def test_training_goes_on_until_it_is_stopped_and_keeps_no_version() -> None:
    """Every step's version is removed again; steps do not overlap."""
    trainer = BusyTrainer()
    training = ContinuousTraining(learner(trainer, FakeSink()))
    training.start(TrainOrder(batch=SHAPE))
    await asyncio.wait_for(trainer.stepped_often.wait(), 10)
    assert training.view.running
    view = await training.stop()
    assert not view.running
    assert view.failure is None
    assert trainer.kept == set()
    assert all(step.num_tokens == 4 * 32 for step in view.steps)
    borders = [(step.began_s, step.ended_s) for step in view.steps]
    assert all(before[1] <= after[0] for before, after in pairwise(borders))


async def test_a_number_of_steps_is_kept_to() -> None:
    """Three steps, although two are in the learner's hands at a time."""
    trainer = FakeTrainer()
    training = ContinuousTraining(learner(trainer, FakeSink()))
    training.start(TrainOrder(batch=SHAPE, num_steps=3))
    await training.finished()
    assert len(trainer.batches) == 3


async def test_a_failed_step_ends_training_with_its_reason() -> None:
    """The reason is in the view; nothing is raised in the node."""
    trainer = FakeTrainer()
    trainer.failures["step"] = TrainerFailed("loss must be finite, got nan")
    training = ContinuousTraining(learner(trainer, FakeSink()))
    training.start(TrainOrder(batch=SHAPE))
    view = await training.finished()
    assert view.failure == "loss must be finite, got nan"


async def test_method_full_publishes_every_step_and_restores_the_base_model() -> None:
    """The learner takes no second step on weights that were not published."""
    trainer = FakeTrainer()
    training = ContinuousTraining(learner(trainer, FakeSink(), method="full"))
    training.start(TrainOrder(batch=SHAPE, num_steps=3))
    await training.finished()
    assert training.view.failure is None
    assert [event for event in trainer.events if event.startswith(("step", "publish_live", "restore"))] == [
        "step 1",
        "publish_live 1",
        "step 2",
        "publish_live 2",
        "step 3",
        "publish_live 3",
        "restore_live 0",
    ]


async def test_publications_follow_each_other_and_free_old_slots() -> None:
    """Six versions through four slots: each becomes active in turn, and the gaps are those of its own two windows."""
    trainer, sink = FakeTrainer(), FakeSink()
    gaps = count(1)

    async def pulse() -> Pulse:
        number = float(next(gaps))
        return Pulse(1.0, 10, number / 2, number, number, 1.0, 0.0, 0.0, 0.0, 0, 0, 0, (), None)

    publications = Publications(learner(trainer, sink), pulse)
    publications.start(PublishOrder(count=6, interval_ms=1, window_ms=1, batch=SHAPE))
    view = await publications.finished()
    assert view.failure is None
    assert [item.version for item in view.publications] == [1, 2, 3, 4, 5, 6]
    # Of each publication's three pulses the first is thrown away, the second is the quiet window, the third the swap.
    assert [(item.quiet.max_ms, item.swap.max_ms) for item in view.publications][:2] == [(2.0, 3.0), (5.0, 6.0)]
    assert sink.active_version == 6
    assert len(trainer.installed) == 4
    assert [event for event in sink.events if event.startswith("activate")] == [f"activate {v}" for v in range(1, 7)]


async def test_a_failed_publication_ends_the_series_with_its_reason() -> None:
    """What was published before stays in the view."""
    trainer = FakeTrainer()
    trainer.failures["install"] = TrainerFailed("no slot")

    async def pulse() -> Pulse:
        return Pulse(1.0, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0, 0, 0, (), None)

    publications = Publications(learner(trainer, FakeSink()), pulse)
    publications.start(PublishOrder(count=2, interval_ms=1, window_ms=1, batch=SHAPE))
    view = await publications.finished()
    assert view.publications == []
    assert view.failure == "no slot"
