"""Micro-batches by hand: which sequences, in which shape, and what each tensor points at."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from trainer.batch import TrainingBatch
from trainer.microbatch import Microbatch, blank_microbatch, bucket_length, cut, graph_shapes, rows_of

CPU = torch.device("cpu")


def batch(*positions: Sequence[int], length: int = 64) -> TrainingBatch:
    """A sequence for each list of sampled positions. Row r holds token 100 r + p at position p, up to the last sampled
    one, was sampled there with log-probability -(r + p / 100), and has advantage r + 1."""
    shape = (len(positions), length)
    token_ids, mask, logprobs = np.zeros(shape, np.int64), np.zeros(shape, np.bool_), np.zeros(shape, np.float32)
    for row, sampled in enumerate(positions):
        token_ids[row, : sampled[-1] + 1] = 100 * row + np.arange(sampled[-1] + 1)
        mask[row, list(sampled)] = True
        logprobs[row, list(sampled)] = [-(row + position / 100) for position in sampled]
    advantages = np.arange(1, len(positions) + 1, dtype=np.float32)
    return TrainingBatch(token_ids, mask, logprobs, advantages, temperature=1.0, oldest_version=0)


def pieces(
    source: TrainingBatch, *, tokens: int = 128, shapes: Sequence[tuple[int, int, int]] = ()
) -> list[Microbatch]:
    return list(cut(source, shares_of(source), tokens=tokens, shapes=shapes, device=CPU))


def shares_of(source: TrainingBatch) -> npt.NDArray[np.float32]:
    """Other ones for each row: 1/2, 1/3, 1/4 …"""
    return (1 / np.arange(2, source.num_sequences + 2)).astype(np.float32)


def rows(piece: Microbatch) -> list[int]:
    """The batch's rows that a micro-batch holds: by their advantages; padding is -1."""
    return [int(advantage) - 1 for advantage in piece.advantages.tolist()]


def test_lengths_are_rounded_up_to_a_ladder() -> None:
    """Multiples of 32 up to 128, then four steps to each octave."""
    ladder = [32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280]
    assert sorted({bucket_length(length) for length in range(1, 1281)}) == ladder
    assert [bucket_length(length) for length in ladder] == ladder
    assert [bucket_length(length) for length in (1, 33, 129, 257, 513, 1025)] == [32, 64, 160, 320, 640, 1280]


@pytest.mark.parametrize(("length", "tokens", "num_rows"), [(1024, 4096, 4), (1280, 4096, 3), (64, 64, 1), (65, 64, 1)])
def test_a_micro_batch_has_as_many_rows_as_its_positions_allow(length: int, tokens: int, num_rows: int) -> None:
    """And one at the least: a sequence is never split."""
    assert rows_of(length, tokens=tokens) == num_rows


def test_graphs_are_kept_of_two_lengths_an_octave() -> None:
    """For replies of 128 and sequences of 1024; each holds as many rows as 4096 positions allow, the longest first."""
    shapes = graph_shapes(1024, 128, tokens=4096)
    assert sorted(length for _, length, _ in shapes) == [192, 256, 384, 512, 768, 1024]
    assert shapes == [
        (4, 1024, 128),
        (5, 768, 128),
        (8, 512, 128),
        (10, 384, 128),
        (16, 256, 128),
        (21, 192, 128),
    ]


@pytest.mark.parametrize(
    ("max_length", "reply", "shapes"),
    [
        (1000, 600, [(1, 1024, 640), (1, 768, 640)]),
        (100, 20, [(8, 128, 32), (10, 96, 32), (16, 64, 32)]),
        (128, 128, [(8, 128, 128)]),
    ],
)
def test_the_longest_graph_holds_the_longest_sequence(
    max_length: int, reply: int, shapes: list[tuple[int, int, int]]
) -> None:
    """No length is as short as the reply alone, but where nothing longer occurs."""
    assert graph_shapes(max_length, reply, tokens=1024) == shapes


def test_long_sequences_come_first_and_equal_ones_in_their_order() -> None:
    """Last sampled positions 5, 40, 5 and 20: 41 tokens make 64, of which 128 positions hold two; then 6 make 32."""
    first, second = pieces(batch([4, 5], [39, 40], [5], [20]))
    assert (rows(first), first.shape, first.num_positions) == ([1, 3], (2, 64, 32), 128)
    assert (rows(second), second.shape) == ([0, 2], (2, 32, 32))


def test_a_sequence_longer_than_the_limit_goes_alone() -> None:
    """60 and 50 tokens where 32 positions are allowed."""
    assert [(rows(piece), piece.shape) for piece in pieces(batch([59], [49]), tokens=32)] == [
        ([0], (1, 64, 32)),
        ([1], (1, 64, 32)),
    ]


def test_the_smallest_shape_that_fits_is_taken_and_filled_up() -> None:
    """41 tokens do not fit 32 positions, nor 34 sampled ones a width of 32. The rest of the rows is padding."""
    kept = [(2, 256, 64), (2, 64, 64), (4, 64, 32), (4, 32, 32)]
    (piece,) = pieces(batch([40], [5], [3]), shapes=kept)
    assert (rows(piece), piece.shape) == ([0, 1, 2, -1], (4, 64, 32))
    wide = list(range(7, 41))
    (piece,) = pieces(batch(wide), shapes=kept)
    assert (rows(piece), piece.shape) == ([0, -1], (2, 64, 64))


def test_what_fits_no_shape_gets_its_own() -> None:
    """100 tokens make 128 positions, and the limit leaves one row; the short one behind it takes the kept shape."""
    first, second = pieces(batch([3], [99], length=128), tokens=128, shapes=[(4, 32, 32)])
    assert (rows(first), first.shape) == ([1], (1, 128, 32))
    assert (rows(second), second.shape) == ([0, -1, -1, -1], (4, 32, 32))


def test_each_token_is_predicted_at_the_position_before_it() -> None:
    """Also where sampled tokens are not neighbours: 3, 5 and 6 of the first row, 2 of the second, whose positions begin
    at 32 in the flattened [2 * 32]."""
    (piece,) = pieces(batch([3, 5, 6], [2]))
    assert piece.predictors[0, :3].tolist() == [2, 4, 5]
    assert piece.targets[0, :3].tolist() == [3, 5, 6]
    assert piece.behaviour_logprobs[0, :3].tolist() == pytest.approx([-0.03, -0.05, -0.06])
    assert piece.predictors[1, :1].tolist() == [32 + 1]
    assert piece.targets[1, :1].tolist() == [102]
    assert piece.behaviour_logprobs[1, :1].tolist() == pytest.approx([-1.02])
    assert piece.mask.sum(dim=1).tolist() == [3, 1]
    assert piece.mask[0, :3].all()
    assert piece.mask[1, 0]


def test_token_ids_are_the_sequences_and_zeros() -> None:
    """Cut to the micro-batch's length, or filled up where that is longer than the batch."""
    (short,) = pieces(batch([3, 5], length=64))
    assert short.token_ids.tolist() == [[0, 1, 2, 3, 4, 5] + 26 * [0]]
    (long,) = pieces(batch([3, 5], length=32), shapes=[(1, 64, 32)])
    assert long.token_ids.tolist() == [[0, 1, 2, 3, 4, 5] + 58 * [0]]


def test_padding_changes_nothing() -> None:
    """Beside the sampled tokens everything is zero, and so is all of a padding row but its place."""
    (piece,) = pieces(batch([3, 5], [2]), shapes=[(3, 32, 32)])
    for tensor in (piece.predictors, piece.targets, piece.behaviour_logprobs):
        assert not tensor[~piece.mask].any()
    assert not piece.mask[2].any()
    assert not piece.token_ids[2].any()
    assert (piece.token_shares[2].item(), piece.advantages[2].item()) == (0, 0)


def test_a_token_weighs_what_it_was_given() -> None:
    """Five sequences in three micro-batches with padding rows, which weigh nothing."""
    found = pieces(batch([40], [5], [3], [8], [50]), shapes=[(2, 64, 32), (2, 32, 32)])
    assert [rows(piece) for piece in found] == [[4, 0], [3, 1], [2, -1]]
    shares = torch.cat([piece.token_shares for piece in found])
    assert shares.tolist() == pytest.approx([1 / 6, 1 / 2, 1 / 5, 1 / 3, 1 / 4, 0.0])


def test_no_token_is_lost_and_none_comes_twice() -> None:
    """All sampled tokens of all rows, in whatever micro-batch."""
    source = batch([3, 5, 6], [2], [40, 41], [9, 11])
    targets = [target for piece in pieces(source, tokens=64) for target in piece.targets[piece.mask].tolist()]
    assert sorted(targets) == [3, 5, 6, 102, 240, 241, 309, 311]


def test_a_blank_micro_batch_holds_only_padding_and_takes_another_ones_values() -> None:
    """In place, as a captured graph needs it."""
    (piece,) = pieces(batch([3, 5], [2]), shapes=[(3, 32, 32)])
    blank = blank_microbatch((3, 32, 32), CPU)
    assert blank.shape == (3, 32, 32)
    assert not blank.mask.any()
    assert not blank.token_shares.any()
    place = blank.targets.data_ptr()
    blank.fill(piece)
    assert blank.targets.data_ptr() == place
    assert (blank.proximal_logprobs, blank.reference_logprobs) == (None, None)
    for name in [
        name for name in Microbatch.__slots__ if not name.endswith(("proximal_logprobs", "reference_logprobs"))
    ]:
        ours, theirs = getattr(blank, name), getattr(piece, name)
        assert torch.equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_scores_travel_between_micro_batches_that_have_room() -> None:
    """A graph's inputs take all of a micro-batch; the micro-batch takes back what was scored, and nothing else."""
    (piece,) = pieces(batch([3, 5], [2]), shapes=[(3, 32, 32)])
    ours, inputs = (
        one.with_room(proximal=True, reference=False) for one in (piece, blank_microbatch((3, 32, 32), CPU))
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
