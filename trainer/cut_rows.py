"""Sequences of a batch in rows of their own: ordered by length, so that a micro-batch holds little padding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.batch import TrainingBatch
from trainer.lengths import bucket_length, rows_of
from trainer.microbatch import Microbatch, Shape

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """What is cut."""

    batch: TrainingBatch
    shares: npt.NDArray[np.float32]
    sampled: Sequence[Integers]
    """Of each sequence, the positions of its sampled tokens."""

    def length(self, row: int) -> int:
        """Positions up to the last sampled token, itself included."""
        return int(self.sampled[row][-1]) + 1

    def prompt(self, row: int) -> bytes:
        """What comes before the first sampled token."""
        return self.batch.token_ids[row, : int(self.sampled[row][0])].tobytes()

    def path(self, row: int) -> Integers:
        """Tokens that something is predicted from: all but the last."""
        return self.batch.token_ids[row, : int(self.sampled[row][-1])]

    def of_sequences(
        self, rows: Sequence[int], shape: Shape, device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A micro-batch's mask, behaviour_logprobs, advantages and token_shares."""
        mask = np.zeros((shape.rows, shape.width), np.bool_)
        behaviour = np.zeros((shape.rows, shape.width), np.float32)
        advantages, shares = np.zeros(shape.rows, np.float32), np.zeros(shape.rows, np.float32)
        for place, row in enumerate(rows):
            positions = self.sampled[row]
            mask[place, : len(positions)] = True
            behaviour[place, : len(positions)] = self.batch.behaviour_logprobs[row, positions]
            advantages[place], shares[place] = self.batch.advantages[row], self.shares[row]
        of_tokens = on_device(mask, device), on_device(behaviour, device)
        return *of_tokens, on_device(advantages, device), on_device(shares, device)


def on_device(array: npt.NDArray[Any], device: torch.device) -> Tensor:
    """A copy, or on a CPU the array itself."""
    return torch.from_numpy(array).to(device)


@dataclass(frozen=True, slots=True)
class Apart:
    """Sequences with a row each."""

    rows: Sequence[int]
    shape: Shape

    def laid_out(self, source: Source, device: torch.device) -> Microbatch:
        num_rows, length, width, _ = self.shape
        given = source.batch.token_ids
        copied = min(length, given.shape[1])
        token_ids = np.zeros((num_rows, length), np.int64)
        predictors, targets = np.zeros((num_rows, width), np.int64), np.zeros((num_rows, width), np.int64)
        for place, row in enumerate(self.rows):
            positions = source.sampled[row]
            token_ids[place, :copied] = given[row, :copied]
            predictors[place, : len(positions)] = place * length + positions - 1
            targets[place, : len(positions)] = given[row, positions]
        return Microbatch(
            on_device(token_ids, device),
            on_device(predictors, device),
            on_device(targets, device),
            *source.of_sequences(self.rows, self.shape, device),
        )


def cut_rows(source: Source, tokens: int, shapes: Sequence[Shape]) -> Iterator[Apart]:
    """Micro-batches of at most ``tokens`` positions (or one sequence), longest sequences first.

    Each takes the smallest of ``shapes`` that it fits; without one, its own.
    """
    order = sorted(range(source.batch.num_sequences), key=lambda row: (-source.length(row), row))
    start = 0
    while start < len(order):
        widest = max(len(source.sampled[row]) for row in order[start:])
        shape = _shape_apart(source.length(order[start]), widest, len(order) - start, tokens, shapes)
        yield Apart(order[start : start + shape.rows], shape)
        start += shape.rows


def _shape_apart(length: int, width: int, num_left: int, tokens: int, shapes: Sequence[Shape]) -> Shape:
    """The smallest of the shapes that holds such sequences, or one of the ladder's with no more rows than are left."""
    fitting = [shape for shape in shapes if shape.length >= length and shape.width >= width]
    if fitting:
        return min(fitting, key=lambda shape: (shape.length, shape.width))
    padded = bucket_length(length)
    return Shape(min(rows_of(padded, tokens=tokens), num_left), padded, bucket_length(width))
