"""Cuts by hand: which sequences, in which shape, and what each tensor points at."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.batch import TrainingBatch
from trainer.cutting import Cut, cut_up
from trainer.lengths import bucket_length, rows_of
from trainer.microbatch import Microbatch, Shape

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
    kept = [Shape(*shape) for shape in shapes]
    return list(cut_up(source, shares_of(source), Cut(tokens), shapes=kept, device=CPU))


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
    shapes = Cut(4096).shapes(1024, 128)
    assert sorted(length for _, length, _, _ in shapes) == [192, 256, 384, 512, 768, 1024]
    assert shapes == [
        Shape(4, 1024, 128),
        Shape(5, 768, 128),
        Shape(8, 512, 128),
        Shape(10, 384, 128),
        Shape(16, 256, 128),
        Shape(21, 192, 128),
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
    assert Cut(1024).shapes(max_length, reply) == [Shape(*shape) for shape in shapes]


def test_long_sequences_come_first_and_equal_ones_in_their_order() -> None:
    """Last sampled positions 5, 40, 5 and 20: 41 tokens make 64, of which 128 positions hold two; then 6 make 32."""
    first, second = pieces(batch([4, 5], [39, 40], [5], [20]))
    assert (rows(first), first.shape, first.num_positions) == ([1, 3], Shape(2, 64, 32), 128)
    assert (rows(second), second.shape) == ([0, 2], Shape(2, 32, 32))


def test_a_sequence_longer_than_the_limit_goes_alone() -> None:
    """60 and 50 tokens where 32 positions are allowed."""
    assert [(rows(piece), piece.shape) for piece in pieces(batch([59], [49]), tokens=32)] == [
        ([0], Shape(1, 64, 32)),
        ([1], Shape(1, 64, 32)),
    ]


def test_the_smallest_shape_that_fits_is_taken_and_filled_up() -> None:
    """41 tokens do not fit 32 positions, nor 34 sampled ones a width of 32. The rest of the rows is padding."""
    kept = [(2, 256, 64), (2, 64, 64), (4, 64, 32), (4, 32, 32)]
    (piece,) = pieces(batch([40], [5], [3]), shapes=kept)
    assert (rows(piece), piece.shape) == ([0, 1, 2, -1], Shape(4, 64, 32))
    wide = list(range(7, 41))
    (piece,) = pieces(batch(wide), shapes=kept)
    assert (rows(piece), piece.shape) == ([0, -1], Shape(2, 64, 64))


def test_what_fits_no_shape_gets_its_own() -> None:
    """100 tokens make 128 positions, and the limit leaves one row; the short one behind it takes the kept shape."""
    first, second = pieces(batch([3], [99], length=128), tokens=128, shapes=[(4, 32, 32)])
    assert (rows(first), first.shape) == ([1], Shape(1, 128, 32))
    assert (rows(second), second.shape) == ([0, -1, -1, -1], Shape(4, 32, 32))


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


def trees(*replies: tuple[Sequence[int], Sequence[int]], length: int = 64) -> TrainingBatch:
    """A sequence for each prompt and reply, all of the reply sampled with log-probability -1."""
    shape = (len(replies), length)
    token_ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.bool_)
    for row, (prompt, reply) in enumerate(replies):
        token_ids[row, : len(prompt) + len(reply)] = [*prompt, *reply]
        mask[row, len(prompt) : len(prompt) + len(reply)] = True
    advantages = np.arange(1, len(replies) + 1, dtype=np.float32)
    return TrainingBatch(token_ids, mask, -1.0 * mask.astype(np.float32), advantages, 1.0, oldest_version=0)


def grown(
    source: TrainingBatch, *, tokens: int = 128, siblings: int = 2, shapes: Sequence[Shape] = ()
) -> list[Microbatch]:
    return list(cut_up(source, shares_of(source), Cut(tokens, siblings), shapes=shapes, device=CPU))


PROMPT = list(range(3, 23))


def test_what_siblings_share_is_there_once() -> None:
    """A prompt of 20 tokens, replies 30 31 32, 30 40 and 50. Of each path the last token predicts nothing: the prompt
    makes nodes 0 to 19, then come 30 and 31 of the first, nothing of the second, whose 30 is there, nor of the third,
    that ends with what the prompt predicts. They come in the order of their tokens."""
    (piece,) = grown(trees((PROMPT, [50]), (PROMPT, [30, 40]), (PROMPT, [30, 31, 32])))
    tree = piece.tree
    assert tree is not None
    assert rows(piece) == [2, 1, 0]
    assert piece.shape == Shape(3, 32, 32, 22)
    assert piece.token_ids[0].tolist() == [*PROMPT, 30, 31]
    assert tree.depths[0].tolist() == [*range(22)]
    assert not tree.padding.any()
    assert tree.paths[0, :22].tolist() == [*range(22)]
    assert tree.paths[1, :21].tolist() == [*range(21)]
    assert tree.paths[2, :20].tolist() == [*range(20)]
    assert tree.owners.tolist() == [*range(22)]
    assert (~tree.borrowed).nonzero()[:, 0].tolist() == [*range(22)]


def test_a_tree_predicts_every_token_from_the_node_before_it() -> None:
    """Two tokens that follow the same node have a score each: the prompt's last node, 19, predicts 30 twice and 50, the
    first reply's node 20 both 31 and 40."""
    (piece,) = grown(trees((PROMPT, [50]), (PROMPT, [30, 40]), (PROMPT, [30, 31, 32])))
    assert piece.predictors[:6].tolist() == [19, 20, 21, 19, 20, 19]
    assert piece.targets[:6].tolist() == [30, 31, 32, 30, 40, 50]
    assert piece.mask.sum(1).tolist() == [3, 2, 1]
    scores = torch.arange(22.0)
    assert piece.by_sequence(scores)[piece.mask].tolist() == [0, 1, 2, 3, 4, 5]
    assert piece.behaviour_logprobs[piece.mask].tolist() == 6 * [-1]
    assert piece.token_shares.tolist() == pytest.approx([1 / 4, 1 / 3, 1 / 2])


def test_beginnings_of_different_prompts_are_shared_too() -> None:
    """A tenant's 18 tokens before two prompts: 18 + 2 + 4 + 3 + 5 nodes, for sequences of 24 + 23 + 25 positions."""
    common = PROMPT[:18]
    source = trees(
        ([*common, 40, 41], [50, 51, 52, 53, 54]),
        ([*common, 60, 61, 62], [50, 51, 52]),
        ([*common, 40, 41], [70, 71, 72, 73, 74, 75]),
    )
    (piece,) = grown(source)
    assert piece.tree is not None
    assert (~piece.tree.padding).sum() == 18 + 2 + 4 + 3 + 2 + 5
    assert rows(piece) == [0, 2, 1]


def test_nothing_is_grown_where_nothing_is_saved() -> None:
    """Replies of full rows to prompts of their own, or siblings that are not to share."""
    apart = trees(*(([row, *range(10, 21)], [30 + row] * 20) for row in range(4, 8)), length=32)
    assert [piece.shape for piece in grown(apart)] == [Shape(4, 32, 32)]
    (piece,) = grown(trees((PROMPT, [50]), (PROMPT, [60])), siblings=1)
    assert piece.tree is None


def test_a_tree_holds_no_more_nodes_than_positions_are_allowed() -> None:
    """Prompts of 20 tokens with three replies of 11, of which 10 predict something: 20 + 10 + 10 nodes fit 40, the
    third sibling begins the next tree with the prompt once more."""
    source = trees(*((PROMPT, [30 + row] * 11) for row in range(3)))
    assert [(rows(one), one.shape.nodes) for one in grown(source, tokens=40)] == [([0, 1], 40), ([2], 30)]


def test_paths_of_a_tree_are_bounded_too() -> None:
    """A prompt of 60 tokens, and replies of which two predict something: 128 nodes would hold 34, but 3 x 128 positions
    hold six of 62. They need 60 + 6 x 2 nodes."""
    source = trees(*(([*range(3, 63)], [70 + row, 2, 2]) for row in range(12)))
    assert [(len(rows(one)), one.shape) for one in grown(source)] == 2 * [(6, Shape(6, 64, 32, 72))]


def test_a_tree_takes_the_cheapest_shape() -> None:
    """Five siblings of 20 + 10 nodes are 70: shapes of longer sequences or more nodes cost more, and so do three trees
    of 48. What no tree's shape holds gets its own."""
    source = trees(*((PROMPT, [30 + row] * 11) for row in range(5)))
    small, best = Shape(4, 32, 32, 48), Shape(8, 32, 32, 80)
    kept = [small, Shape(8, 64, 32, 80), best, Shape(8, 32, 32, 96), Shape(4, 64, 32), Shape(4, 32, 32, 80)]
    (piece,) = grown(source, shapes=kept)
    assert (rows(piece), piece.shape) == ([0, 1, 2, 3, 4, -1, -1, -1], best)
    found = [(rows(piece), piece.shape) for piece in grown(source, shapes=[small])]
    assert found == [([0, 1, -1, -1], small), ([2, 3, -1, -1], small), ([4, -1, -1, -1], small)]
    (piece,) = grown(source, shapes=[Shape(8, 16, 32, 96)])
    assert piece.shape == Shape(5, 32, 32, 70)


def test_a_rest_takes_smaller_shapes() -> None:
    """Nine siblings of 20 + 10 nodes are 110, of which 64 hold four and 48 two. 64 + 64 + 32, the prompt three times:
    4 x 10, 4 x 10 and 10, is less than three times 64, and than five times 48."""
    source = trees(*((PROMPT, [30 + row] * 11) for row in range(9)))
    kept = [Shape(8, 32, 32, 64), Shape(4, 32, 32, 48), Shape(2, 32, 32, 32)]
    found = [(len([row for row in rows(piece) if row >= 0]), piece.shape) for piece in grown(source, shapes=kept)]
    assert sorted(found) == [(1, kept[2]), (4, kept[0]), (4, kept[0])]


def test_equal_replies_need_as_many_scores_as_tokens() -> None:
    """Eight times the same reply: 20 + 19 nodes, 160 sampled tokens, each with an advantage of its own."""
    (piece,) = grown(trees(*[(PROMPT, [30] * 20)] * 8), tokens=256, siblings=8)
    assert piece.tree is not None
    assert (~piece.tree.padding).sum() == 39
    assert piece.mask.sum() == 160
    assert (piece.targets == 30).sum() == 160
    assert sorted(piece.predictors[piece.targets == 30].unique().tolist()) == [*range(19, 39)]


def test_graphs_of_trees_hold_a_group_of_full_replies() -> None:
    """Replies of 128 in sequences of 1024: of eight siblings each takes (L + 7 x 128) / 8 nodes, and there is room for
    a quarter more: 4096 / 144 x 1.25 = 35 for L = 256, where 512 would have 29 and 1024 21, but 3 x 4096 positions are
    24 of 512 and 12 of 1024."""
    found = Cut(4096, 8).shapes(1024, 128)
    assert [shape for shape in found if shape.nodes is None] == [
        Shape(4, 1024, 128),
        Shape(8, 512, 128),
        Shape(16, 256, 128),
    ]
    assert [shape for shape in found if shape.nodes == 4096] == [
        Shape(12, 1024, 128, 4096),
        Shape(24, 512, 128, 4096),
        Shape(35, 256, 128, 4096),
    ]
    assert [shape[:3] for shape in found if shape.nodes == 2048] == [(6, 1024, 128), (12, 512, 128), (17, 256, 128)]
    assert [shape[:3] for shape in found if shape.nodes == 1024] == [(3, 1024, 128), (6, 512, 128), (8, 256, 128)]
    assert len(found) == 12


@given(
    prompts=st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=12), min_size=1, max_size=4),
    replies=st.lists(st.lists(st.integers(1, 2), min_size=1, max_size=8), min_size=1, max_size=4),
    tokens=st.integers(32, 96),
)
def test_paths_of_a_tree_spell_the_sequences(prompts: list[list[int]], replies: list[list[int]], tokens: int) -> None:
    """Whatever is shared: each sequence is there once, its path's nodes hold its tokens at their depths, every node has
    one owner on a path through it, and every sampled token is scored by the node before it."""
    source = trees(*((prompt, reply) for prompt in prompts for reply in replies), length=32)
    found = grown(source, tokens=tokens)
    assert sorted(row for piece in found for row in rows(piece) if row >= 0) == list(range(source.num_sequences))
    for piece in found:
        tree = piece.tree
        if tree is None:
            continue
        flat = tree.paths.flatten()
        owned = (~tree.borrowed[:, 0]).nonzero()[:, 0]
        nodes = (~tree.padding[:, 0]).nonzero()[:, 0]
        assert sorted(flat[owned].tolist()) == nodes.tolist()
        assert torch.equal(tree.owners[flat[owned]], owned)
        for place, row in enumerate(rows(piece)):
            sampled = np.flatnonzero(source.mask[row])
            path = tree.paths[place, : sampled[-1]]
            assert piece.token_ids[0, path].tolist() == source.token_ids[row, : sampled[-1]].tolist()
            assert tree.depths[0, path].tolist() == list(range(sampled[-1]))
            assert piece.places is not None
            scored = piece.places[place, : len(sampled)]
            assert piece.predictors[scored].tolist() == tree.paths[place, sampled - 1].tolist()
            assert piece.targets[scored].tolist() == source.token_ids[row, sampled].tolist()
