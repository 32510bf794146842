"""A batch cut into micro-batches of few shapes, as tensors on the learner's device.

    B  sequences of a micro-batch        L  padded length        R  padded number of sampled tokens

Sequences are ordered by length, so that a micro-batch holds little padding. L and R come from a ladder of lengths, four
to an octave: few shapes occur, and for each one a CUDA graph may be kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.batch import TrainingBatch

_SHORTEST_BUCKET = 32
_BUCKETS_PER_OCTAVE = 4


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Right-padded sequences. A row without sampled tokens is padding and changes nothing."""

    token_ids: Tensor
    """[B, L] int64; padding is 0."""
    predictors: Tensor
    """[B, R] int64: index into the flattened [B * L] positions of the one whose output predicts the token."""
    targets: Tensor
    """[B, R] int64: the sampled tokens."""
    mask: Tensor
    """[B, R] bool; false on padding."""
    behaviour_logprobs: Tensor
    """[B, R] float32."""
    advantages: Tensor
    """[B] float32."""
    token_shares: Tensor
    """[B] float32: what each of a sequence's tokens weighs in the whole batch's loss; 0 for padding rows."""
    proximal_logprobs: Tensor | None = None
    """[B, R] float32; None where the current policy is the proximal one."""
    reference_logprobs: Tensor | None = None
    """[B, R] float32; None without a KL term."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(B, L, R)."""
        rows, length = self.token_ids.shape
        return rows, length, self.targets.shape[1]

    @property
    def num_positions(self) -> int:
        """B * L: what goes through forward and backward, padding included."""
        return self.token_ids.numel()

    def with_room(self, *, proximal: bool, reference: bool) -> "Microbatch":
        """The same one with log-probabilities that are still to be written."""
        return replace(
            self,
            proximal_logprobs=torch.zeros_like(self.behaviour_logprobs) if proximal else None,
            reference_logprobs=torch.zeros_like(self.behaviour_logprobs) if reference else None,
        )

    def fill(self, other: "Microbatch") -> None:
        """Copy another one of the same shape in, which has the same fields."""
        self._take(other, [item.name for item in fields(self)])

    def take_scores(self, other: "Microbatch") -> None:
        """Copy in what a scoring program has written to another one."""
        self._take(other, ["proximal_logprobs", "reference_logprobs"])

    def _take(self, other: "Microbatch", names: Sequence[str]) -> None:
        for name in names:
            target = getattr(self, name)
            if target is not None:
                target.copy_(getattr(other, name), non_blocking=True)


def bucket_length(length: int) -> int:
    """The smallest ladder step of at least ``length``: multiples of 32 up to 128, then four steps to an octave."""
    octave: int = 2 ** max(length - 1, 1).bit_length() // 2
    step = max(_SHORTEST_BUCKET, octave // _BUCKETS_PER_OCTAVE)
    return -(-length // step) * step


def blank_microbatch(shape: tuple[int, int, int], device: torch.device) -> Microbatch:
    """One in which every row is padding.

    Args:
        shape: (B, L, R).
    """
    rows, length, width = shape

    def zeros(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    return Microbatch(
        token_ids=zeros(rows, length, dtype=torch.int64),
        predictors=zeros(rows, width, dtype=torch.int64),
        targets=zeros(rows, width, dtype=torch.int64),
        mask=zeros(rows, width, dtype=torch.bool),
        behaviour_logprobs=zeros(rows, width),
        advantages=zeros(rows),
        token_shares=zeros(rows),
    )


def rows_of(length: int, *, tokens: int) -> int:
    """Sequences of a micro-batch of this padded length that stays within ``tokens`` positions; one at the least."""
    return max(1, tokens // length)


def graph_shapes(max_length: int, reply_tokens: int, *, tokens: int) -> list[tuple[int, int, int]]:
    """(B, L, R) of the graphs that are kept: L in two steps to an octave, from the reply's length up to the longest."""
    width = bucket_length(reply_tokens)
    ladder = sorted({step << octave for octave in range(5, 20) for step in (2, 3)})
    lengths = [length for length in ladder if width < length < max_length]
    lengths += [length for length in ladder if length >= max_length][:1]
    return [(rows_of(length, tokens=tokens), length, width) for length in reversed(lengths)]


def cut(
    batch: TrainingBatch,
    shares: npt.NDArray[np.float32],
    *,
    tokens: int,
    shapes: Sequence[tuple[int, int, int]],
    device: torch.device,
) -> Iterator[Microbatch]:
    """Micro-batches of at most ``tokens`` positions (or one sequence), longest sequences first.

    ``shares`` is [B], what each token of a sequence weighs in the loss.

    Each takes the smallest of ``shapes`` that it fits, filled up with padding rows; without one, its own.
    """
    sampled = [np.flatnonzero(mask) for mask in batch.mask]
    order = sorted(range(batch.num_sequences), key=lambda row: (-int(sampled[row][-1]), row))
    start = 0
    while start < len(order):
        longest, widest = int(sampled[order[start]][-1]) + 1, max(len(sampled[row]) for row in order[start:])
        shape = _shape(longest, widest, len(order) - start, tokens, shapes)
        chosen = order[start : start + shape[0]]
        yield _lay_out(batch, shares, [(row, sampled[row]) for row in chosen], shape, device)
        start += len(chosen)


def _shape(
    length: int, width: int, num_left: int, tokens: int, shapes: Sequence[tuple[int, int, int]]
) -> tuple[int, int, int]:
    """The smallest of the shapes that holds such sequences, or one of the ladder's with no more rows than are left."""
    fitting = [shape for shape in shapes if shape[1] >= length and shape[2] >= width]
    if fitting:
        return min(fitting, key=lambda shape: (shape[1], shape[2]))
    padded = bucket_length(length)
    return min(rows_of(padded, tokens=tokens), num_left), padded, bucket_length(width)


def _lay_out(
    batch: TrainingBatch,
    shares: npt.NDArray[np.float32],
    chosen: Sequence[tuple[int, npt.NDArray[np.int64]]],
    shape: tuple[int, int, int],
    device: torch.device,
) -> Microbatch:
    """``chosen``: rows of the batch, each with the positions of its sampled tokens."""
    num_rows, length, width = shape
    copied = min(length, batch.token_ids.shape[1])
    token_ids = np.zeros((num_rows, length), np.int64)
    predictors, targets = np.zeros((num_rows, width), np.int64), np.zeros((num_rows, width), np.int64)
    mask, behaviour = np.zeros((num_rows, width), np.bool_), np.zeros((num_rows, width), np.float32)
    advantages, token_shares = np.zeros(num_rows, np.float32), np.zeros(num_rows, np.float32)
    for row, (source, positions) in enumerate(chosen):
        kept = slice(len(positions))
        token_ids[row, :copied] = batch.token_ids[source, :copied]
        predictors[row, kept] = row * length + positions - 1
        targets[row, kept] = batch.token_ids[source, positions]
        mask[row, kept] = True
        behaviour[row, kept] = batch.behaviour_logprobs[source, positions]
        advantages[row], token_shares[row] = batch.advantages[source], shares[source]
    arrays = (token_ids, predictors, targets, mask, behaviour, advantages, token_shares)
    return Microbatch(*(torch.from_numpy(array).to(device) for array in arrays))
