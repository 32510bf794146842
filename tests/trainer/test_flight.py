"""Micro-batches in their turns, and what the pacer hears of them."""

import torch

from trainer.flight import fly
from trainer.graphs import Eager
from trainer.lanes import open_lanes
from trainer.microbatch import Microbatch, Shape, blank_microbatch
from trainer.pace import Pace
from trainer.pacer import Pacer

CPU = torch.device("cpu")


def test_micro_batches_run_in_order_and_only_trained_positions_count() -> None:
    """Two of 3 x 64 and 1 x 32 positions, once to be scored and once to be trained on: four flights, 224 positions."""
    seen: list[Microbatch] = []
    shapes = (Shape(3, 64, 32), Shape(1, 32, 32))
    lanes, microbatches = open_lanes(CPU), [blank_microbatch(shape, CPU) for shape in shapes]
    pacer = Pacer(lanes.sizes, lanes.reason)
    for trains in (False, True):
        fly(Eager(seen.append), microbatches, lanes, pacer, trains=trains)
    assert [id(one) for one in seen] == [id(one) for one in microbatches * 2]
    pulse = pacer.exchange(Pace(num_sms=0, duty=1.0))
    assert (pulse.num_microbatches, pulse.num_train_tokens) == (4, 3 * 64 + 32)


def test_scoring_waits_for_its_turn() -> None:
    """The engine is busy and the pace grants nothing: the micro-batch runs after the pace has been raised."""
    events: list[str] = []

    def sleep(_: float) -> None:
        events.append("waited")
        pacer.exchange(Pace(num_sms=0, duty=1.0))

    lanes = open_lanes(CPU)
    pacer = Pacer(lanes.sizes, lanes.reason, sleep=sleep)
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=0, duty=0.0))
    blank = blank_microbatch(Shape(1, 32, 32), CPU)
    fly(Eager(lambda _: events.append("ran")), [blank], lanes, pacer, trains=False)
    assert events == ["waited", "ran"]
