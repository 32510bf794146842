"""Sequences of a batch as trees (trainer.prefix_tree): in the order of their tokens, so that those that begin alike are
neighbours; groups with long sequences first, since what attention pads is padded to the longest."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from trainer.cut_rows import Integers, Source, on_device
from trainer.lengths import bucket_length
from trainer.microbatch import Microbatch, Shape
from trainer.prefix_tree import PrefixTree

MOST_PATHS = 3
"""Positions of a tree's paths for each of its nodes, at most: attention computes and keeps them all."""
_PATH = 0.05
"""What a position of a path costs attention, as a share of what a node costs the model. Estimated."""
_EACH = 0.05
"""What a micro-batch costs beside its positions, as a share of the largest one's: its launch, and a worse use of the
device by small ones. Estimated."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Sequences whose common beginnings are there once."""

    rows: Sequence[int]
    new_from: Sequence[int]
    """Of each, the first position that it does not share with the one before it."""
    shape: Shape

    def laid_out(self, source: Source, device: torch.device) -> Microbatch:
        shape = self.shape
        token_ids, depths = np.zeros((1, shape.positions), np.int64), np.zeros((1, shape.positions), np.int64)
        owners, padding = np.zeros(shape.positions, np.int64), np.ones((shape.positions, 1), np.bool_)
        # Padding reads many nodes, not one: its gradients, all zero, would be added to that one by one.
        paths = np.arange(shape.rows * shape.length).reshape(shape.rows, shape.length) % shape.positions
        borrowed = np.ones((shape.rows, shape.length), np.bool_)
        num_nodes = 0
        for place, (row, first) in enumerate(zip(self.rows, self.new_from, strict=True)):
            path = source.path(row)
            if first:
                paths[place, :first] = paths[place - 1, :first]
            own, nodes = slice(first, len(path)), slice(num_nodes, num_nodes + len(path) - first)
            paths[place, own] = np.arange(nodes.start, nodes.stop)
            borrowed[place, own] = padding[nodes] = False
            depths[0, nodes] = np.arange(own.start, own.stop)
            owners[nodes] = place * shape.length + depths[0, nodes]
            token_ids[0, nodes] = path[own]
            num_nodes = nodes.stop
        arrays = (depths, paths, owners, borrowed.reshape(-1, 1), padding)
        predictors, targets, places = self._scored(source, paths)
        return Microbatch(
            on_device(token_ids, device),
            on_device(predictors, device),
            on_device(targets, device),
            *source.of_sequences(self.rows, shape, device),
            places=on_device(places, device),
            tree=PrefixTree(*(on_device(array, device) for array in arrays)),
        )

    def _scored(self, source: Source, paths: Integers) -> tuple[Integers, Integers, Integers]:
        """A micro-batch's predictors, targets and places."""
        predictors, targets = np.zeros(self.shape.scored, np.int64), np.zeros(self.shape.scored, np.int64)
        places = np.zeros((self.shape.rows, self.shape.width), np.int64)
        start = 0
        for place, row in enumerate(self.rows):
            positions = source.sampled[row]
            scored = slice(start, start + len(positions))
            predictors[scored] = paths[place, positions - 1]
            targets[scored] = source.batch.token_ids[row, positions]
            places[place, : len(positions)] = np.arange(scored.start, scored.stop)
            start = scored.stop
        return predictors, targets, places


def cut_trees(line: "Line", tokens: int, shapes: Sequence[Shape]) -> list[Tree]:
    """Micro-batches of at most ``tokens`` nodes (or one sequence), of ``shapes`` where they fit: those that together
    cost least."""
    order = line.order
    most = max((shape.rows for shape in shapes), default=len(order))
    cheapest = {0: _Way(0.0, 0, None)}
    for start in range(len(order)):
        if start not in cheapest:  # no micro-batch ends there
            continue
        for count, shape in _choices(line.growing(start, most), tokens, shapes):
            cost = cheapest[start].cost + shape.positions + _PATH * shape.paths + _EACH * tokens
            if start + count not in cheapest or cost < cheapest[start + count].cost:
                cheapest[start + count] = _Way(cost, start, shape)
    trees: list[Tree] = []
    end = len(order)
    while (way := cheapest[end]).shape is not None:
        trees.append(Tree(order[way.start : end], [0, *line.shared[way.start + 1 : end].tolist()], way.shape))
        end = way.start
    return trees[::-1]


class _Way(NamedTuple):
    """To cut the sequences up to some place."""

    cost: float
    start: int
    """Of the last micro-batch."""
    shape: Shape | None
    """Of that; None where there is none yet."""


def _neighbours(source: Source) -> list[int]:
    """Prompts with the longest sequences first, by octave; within those in the order of their tokens."""
    prompts = [source.prompt(row) for row in range(source.batch.num_sequences)]
    longest: dict[bytes, int] = {}
    for row, prompt in enumerate(prompts):
        longest[prompt] = max(longest.get(prompt, 0), source.length(row))
    ordered = source.batch.token_ids.astype(">i8")  # whose bytes sort as the numbers do

    def key(row: int) -> tuple[int, bytes, int]:
        return -(longest[prompts[row]] - 1).bit_length(), ordered[row, : source.length(row)].tobytes(), row

    return sorted(range(source.batch.num_sequences), key=key)


def _num_shared(one: Integers, other: Integers) -> int:
    """Length of the common beginning."""
    length = min(len(one), len(other))
    differs = np.flatnonzero(one[:length] != other[:length])
    return int(differs[0]) if len(differs) else length


@dataclass(frozen=True, slots=True)
class Line:
    """Sequences in the order in which they are cut, [n] each."""

    order: Sequence[int]
    """Their rows."""
    paths: Integers
    """Length of the path."""
    shared: Integers
    """Of it with the one before."""
    widths: Integers
    """Sampled tokens."""

    @classmethod
    def of(cls, source: Source) -> "Line":
        """Neighbours begin alike."""
        order = _neighbours(source)
        shared = [0, *(_num_shared(source.path(one), source.path(other)) for one, other in pairwise(order))]
        sizes = np.array([(len(source.path(row)), len(source.sampled[row])) for row in order])
        return cls(order, sizes[:, 0], np.array(shared), sizes[:, 1])

    @property
    def num_nodes(self) -> int:
        """Fewest that all sequences together need."""
        return int((self.paths - self.shared).sum())

    def growing(self, start: int, most: int) -> "_Growing":
        """Trees that begin with a sequence, of so many at most."""
        part = slice(start, start + most)
        nodes = np.cumsum(self.paths[part] - self.shared[part]) + self.shared[start]  # the first one shares nothing
        widths = self.widths[part]
        lengths = np.maximum.accumulate(self.paths[part])
        needs = (nodes, np.cumsum(widths), lengths, np.maximum.accumulate(widths))
        return _Growing(*(need.tolist() for need in needs))


@dataclass(frozen=True, slots=True)
class _Growing:
    """Trees of the first 1, 2, 3 … of some sequences: what each needs, [n]. Nothing of it ever falls."""

    nodes: list[int]
    scored: list[int]
    length: list[int]
    width: list[int]

    def num_fitting(self, shape: Shape) -> int:
        """How many of the sequences a shape holds."""
        return min(
            shape.rows,
            bisect_right(self.nodes, shape.positions),
            bisect_right(self.scored, shape.scored),
            bisect_right(self.length, shape.length),
            bisect_right(self.width, shape.width),
        )

    def num_within(self, tokens: int) -> int:
        """How many of the sequences, one at the least, stay within so many nodes, and their paths within MOST_PATHS."""
        count = 1
        while count < len(self.nodes) and self.nodes[count] <= tokens:
            if (count + 1) * self.length[count] > MOST_PATHS * tokens:
                break
            count += 1
        return count

    def own_shape(self, count: int) -> Shape:
        """What the first so many just fit."""
        last = count - 1
        length, width = bucket_length(self.length[last]), bucket_length(self.width[last])
        nodes = max(self.nodes[last], self.scored[last])  # equal replies have more targets than nodes
        return Shape(count, length, width, nodes)


def _choices(growing: _Growing, tokens: int, shapes: Sequence[Shape]) -> list[tuple[int, Shape]]:
    """What the next tree may be: how many sequences, in which shape. Each shape that holds any, with as many as it
    holds; where none does, as many as are allowed in a shape of their own."""
    fitting = [(count, shape) for shape in shapes if (count := growing.num_fitting(shape))]
    if fitting:
        return fitting
    count = growing.num_within(tokens)
    return [(count, growing.own_shape(count))]
