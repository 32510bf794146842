"""Micro-batches as tensors that keep their place."""

from collections.abc import Iterator
from dataclasses import fields

import pytest
import torch
from torch import Tensor

from tests.trainer.test_cutting import CPU, PROMPT, batch, pieces, shares_of, trees
from trainer.cutting import Cut, cut_up
from trainer.microbatch import Microbatch, Shape, blank_microbatch


def tensors(microbatch: Microbatch) -> Iterator[tuple[str, Tensor]]:
    """All that there are, a tree's too."""
    for part in (microbatch, microbatch.tree):
        for item in fields(part) if part is not None else ():
            if isinstance(value := getattr(part, item.name), Tensor):
                yield item.name, value


@pytest.mark.parametrize("shape", [Shape(3, 32, 32), Shape(3, 32, 32, 24)])
def test_a_blank_micro_batch_holds_only_padding_and_takes_another_ones_values(shape: Shape) -> None:
    """In place, as a captured graph needs it."""
    source, siblings = trees((PROMPT, [50]), (PROMPT, [30, 40])), 1 if shape.nodes is None else 2
    piece, *_ = cut_up(source, shares_of(source), Cut(64, siblings), shapes=[shape], device=CPU)
    assert piece.shape == shape
    blank = blank_microbatch(shape, CPU)
    assert blank.shape == shape
    assert not blank.mask.any()
    assert not blank.token_shares.any()
    place = blank.targets.data_ptr()
    blank.fill(piece)
    assert blank.targets.data_ptr() == place
    assert (blank.proximal_logprobs, blank.reference_logprobs) == (None, None)
    assert [name for name, _ in tensors(blank)] == [name for name, _ in tensors(piece)]
    for (name, ours), (_, theirs) in zip(tensors(blank), tensors(piece), strict=True):
        assert torch.equal(ours, theirs), name
        assert ours.dtype == theirs.dtype


def test_scores_travel_between_micro_batches_that_have_room() -> None:
    """A graph's inputs take all of a micro-batch; the micro-batch takes back what was scored, and nothing else."""
    (piece,) = pieces(batch([3, 5], [2]), shapes=[(3, 32, 32)])
    ours, inputs = (
        one.with_room(proximal=True, reference=False) for one in (piece, blank_microbatch(Shape(3, 32, 32), CPU))
    )
    assert ours.proximal_logprobs is not None
    assert inputs.proximal_logprobs is not None
    assert ours.reference_logprobs is None
    ours.proximal_logprobs.fill_(-0.5)
    inputs.fill(ours)
    assert inputs.proximal_logprobs.unique().tolist() == [-0.5]
    assert torch.equal(inputs.targets, piece.targets)
    inputs.proximal_logprobs.fill_(-0.25)
    inputs.targets.zero_()
    ours.take_scores(inputs)
    assert ours.proximal_logprobs.unique().tolist() == [-0.25]
    assert ours.targets.any()
