"""Partitions of a GPU's multiprocessors: their sizes, and what there is where they cannot be made."""

from typing import Any

import pytest
import torch

from trainer.lanes import Lane, Lanes, _partitions, lane_sizes, open_lanes

CPU = torch.device("cpu")


class Context:
    """A green context; its stream is anything that is not None."""

    def __init__(self, num_sms: int) -> None:
        self.num_sms = num_sms

    def Stream(self) -> Any:  # noqa: N802 - torch's name
        return f"stream of {self.num_sms}"


@pytest.mark.parametrize(
    ("num_sms", "sizes"),
    [
        (132, (32, 64, 104)),  # 33, 64.68 and 104.28, down to multiples of 8
        (108, (24, 48, 80)),  # 27, 52.92, 85.32
        (46, (8, 16, 32)),  # 11.5, 22.54, 36.34
        (16, (8,)),  # 4, 7.84, 12.64
        (12, (8,)),  # 3, 5.88, 9.48
        (8, ()),  # 2, 3.92, 6.32
    ],
)
def test_partitions_are_multiples_of_eight_multiprocessors(num_sms: int, sizes: tuple[int, ...]) -> None:
    """0.25, 0.49 and 0.79 of the GPU's, rounded down; none is empty and none is the whole."""
    assert lane_sizes(num_sms) == sizes


def test_shares_may_be_others() -> None:
    """All of 16 is no partition; sizes come in ascending order."""
    assert lane_sizes(64, (0.75, 0.25)) == (16, 48)
    assert lane_sizes(16, (1.0, 0.5)) == (8,)


def test_a_cpu_has_one_lane_without_a_stream() -> None:
    """It may be entered all the same; there are no sizes to choose from."""
    lanes = open_lanes(CPU)
    assert (lanes.sizes, lanes.reason) == ((), "not a CUDA device")
    assert lanes.whole is lanes.of_size(0) is lanes.of_size(132)
    assert (lanes.whole.num_sms, lanes.whole.stream) == (0, None)
    with lanes.whole.active():
        assert torch.ones(2).sum().item() == 2


@pytest.mark.parametrize(("asked", "given"), [(132, 132), (500, 132), (131, 104), (104, 104), (64, 64), (1, 64)])
def test_a_size_gets_the_largest_lane_within_it(asked: int, given: int) -> None:
    """Or the smallest lane there is."""
    lanes = Lanes((Lane(64, None), Lane(104, None), Lane(132, None)), None)
    assert lanes.of_size(asked).num_sms == given
    assert lanes.whole.num_sms == 132


def test_each_partition_has_a_stream_of_its_context_and_keeps_it() -> None:
    """A context that is let go takes its stream along."""
    made: list[Context] = []

    def create(num_sms: int, device: torch.device) -> Context:
        made.append(Context(num_sms))
        return made[-1]

    partitions, reason = _partitions((64, 104), CPU, create)
    assert reason is None
    assert [(lane.num_sms, str(lane.stream)) for lane in partitions] == [(64, "stream of 64"), (104, "stream of 104")]
    assert [lane.keep for lane in partitions] == made
    assert Lanes(partitions, reason).sizes == (64, 104)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("the driver is too old"),
        ImportError("No module named 'torch.cuda.green_contexts'"),
        AttributeError("no attribute 'create'"),
    ],
)
def test_where_green_contexts_cannot_be_made_there_are_no_partitions(error: Exception) -> None:
    """The reason is told. One that fails takes those before it along: a pace must not name a size that is missing."""

    def create(num_sms: int, device: torch.device) -> Context:
        if num_sms == 104:
            raise error
        return Context(num_sms)

    assert _partitions((64, 104), CPU, create) == ((), f"no green contexts: {error}")


def test_a_context_without_streams_is_none() -> None:
    """Older versions of torch have contexts that cannot make a stream."""
    partitions, reason = _partitions((64,), CPU, lambda num_sms, device: object())
    assert partitions == ()
    assert reason == "no green contexts: 'object' object has no attribute 'Stream'"
