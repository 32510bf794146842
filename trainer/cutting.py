"""A batch cut into micro-batches: rows (trainer.cut_rows) or, where that saves positions, trees (trainer.cut_trees)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from trainer.batch import TrainingBatch
from trainer.cut_rows import Apart, Source, cut_rows
from trainer.cut_trees import MOST_PATHS, Line, Tree, cut_trees
from trainer.lengths import bucket_length, rows_of
from trainer.microbatch import Microbatch, Shape

_TREE_ROOM = 1.25
"""Sequences of a tree's graph, over those that fit when all replies are of full length: shorter ones leave nodes."""
_WORTH = 0.95
"""Share of the positions that trees may have at most: their attention takes more than that of rows."""


@dataclass(frozen=True, slots=True)
class Cut:
    """How a batch is cut."""

    tokens: int
    """Most positions of a micro-batch; a longer sequence goes alone."""
    siblings: int = 1
    """Sequences that are expected to share a prompt; 1 leaves all of them apart."""

    def shapes(self, max_length: int, reply_tokens: int) -> list[Shape]:
        """Those that graphs are kept of, from the reply's length up to the longest sequence; the longest first.

        Apart, L in two steps to an octave and B as many as fit. With trees L in one step, U the limit, half and a
        quarter of it, and B some more sequences than fit with a reply of full length after a prompt that they share.
        """
        width = bucket_length(reply_tokens)
        steps = (2, 3) if self.siblings == 1 else (2,)
        ladder = sorted({step << octave for octave in range(5, 20) for step in steps})
        lengths = [length for length in ladder if width < length < max_length]
        lengths += [length for length in ladder if length >= max_length][:1]
        apart = [Shape(rows_of(length, tokens=self.tokens), length, width) for length in reversed(lengths)]
        return apart + [
            Shape(self._tree_rows(nodes, length, width), length, width, nodes)
            for nodes in (self.tokens, self.tokens // 2, self.tokens // 4)
            for length in reversed(lengths)
            if self.siblings > 1 and nodes >= length
        ]

    def _tree_rows(self, nodes: int, length: int, width: int) -> int:
        nodes_of_siblings = length + (self.siblings - 1) * width
        fitting = int(_TREE_ROOM * nodes * self.siblings / nodes_of_siblings)
        return max(1, min(fitting, MOST_PATHS * nodes // length))


def cut_up(
    batch: TrainingBatch, shares: npt.NDArray[np.float32], how: Cut, *, shapes: Sequence[Shape], device: torch.device
) -> Iterator[Microbatch]:
    """Micro-batches of the whole batch.

    Args:
        shares: [B], what each token of a sequence weighs in the loss.
        shapes: those that are preferred, filled up with padding.
    """
    source = Source(batch, shares, [np.flatnonzero(mask) for mask in batch.mask])
    pieces: Sequence[Apart | Tree] = list(cut_rows(source, how.tokens, [shape for shape in shapes if not shape.nodes]))
    if how.siblings > 1:
        line, bound = Line.of(source), _WORTH * _num_positions(pieces)
        if line.num_nodes <= bound:
            trees = cut_trees(line, how.tokens, [shape for shape in shapes if shape.nodes])
            pieces = trees if _num_positions(trees) <= bound else pieces
    for piece in pieces:
        yield piece.laid_out(source, device)


def _num_positions(pieces: "Sequence[Apart | Tree]") -> int:
    return sum(piece.shape.positions for piece in pieces)
