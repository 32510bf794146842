"""A micro-batch: a part of a batch as tensors on the learner's device.

    B  sequences        L  padded length        R  padded number of a sequence's sampled tokens
    U  positions that go through the model      S  positions whose next token is scored

Either each sequence has a row of its own (U = B * L, S = B * R), or sequences that begin alike share what they begin
with (trainer.prefix_tree).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.prefix_tree import PrefixTree, blank_tree


class Shape(NamedTuple):
    """Sizes of a micro-batch."""

    rows: int
    """B."""
    length: int
    """L."""
    width: int
    """R."""
    nodes: int | None = None
    """U of a tree; None where each sequence has a row of its own."""

    @property
    def positions(self) -> int:
        """U: what goes through forward and backward, padding included."""
        return self.paths if self.nodes is None else self.nodes

    @property
    def paths(self) -> int:
        """B * L: what attention computes."""
        return self.rows * self.length

    @property
    def scored(self) -> int:
        """S, padding included."""
        return min(self.positions, self.rows * self.width)


@dataclass(frozen=True, slots=True)
class Microbatch:
    """Right-padded sequences. A row without sampled tokens is padding and changes nothing."""

    token_ids: Tensor
    """[B, L] int64, of a tree [1, U]; padding is 0."""
    predictors: Tensor
    """[B, R] int64, of a tree [S]: index into the flattened ``token_ids`` of the one whose output predicts the
    token."""
    targets: Tensor
    """[B, R] int64, of a tree [S]: the sampled tokens."""
    mask: Tensor
    """[B, R] bool; false on padding."""
    behaviour_logprobs: Tensor
    """[B, R] float32."""
    advantages: Tensor
    """[B] float32."""
    token_shares: Tensor
    """[B] float32: what each of a sequence's tokens weighs in the whole batch's loss; 0 for padding rows."""
    places: Tensor | None = None
    """Of a tree, [B, R] int64: where in ``targets`` the token is; any place on padding."""
    tree: PrefixTree | None = None
    proximal_logprobs: Tensor | None = None
    """[B, R] float32; None where the current policy is the proximal one."""
    reference_logprobs: Tensor | None = None
    """[B, R] float32; None without a KL term."""

    @property
    def shape(self) -> Shape:
        rows, width = self.mask.shape
        if self.tree is None:
            return Shape(rows, self.token_ids.shape[1], width)
        return Shape(rows, self.tree.paths.shape[1], width, self.token_ids.shape[1])

    @property
    def num_positions(self) -> int:
        """U: what goes through forward and backward, padding included."""
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
        names = [item.name for item in fields(self) if item.name != "tree"]
        pairs = self._pairs(other, names)
        if self.tree is not None and other.tree is not None:
            pairs += zip(self.tree.tensors, other.tree.tensors, strict=True)
        _copy(pairs)

    def take_scores(self, other: "Microbatch") -> None:
        """Copy in what a scoring program has written to another one."""
        _copy(self._pairs(other, ["proximal_logprobs", "reference_logprobs"]))

    def by_sequence(self, scores: Tensor) -> Tensor:
        """[B, R] of values for the flattened ``targets``; on padding any of them."""
        if self.places is None:
            return scores.view(self.mask.shape)
        return scores.index_select(0, self.places.flatten()).view(self.mask.shape)

    def _pairs(self, other: "Microbatch", names: Sequence[str]) -> list[tuple[Tensor, Tensor]]:
        """Of the fields that there are, this one's and the other's."""
        return [(getattr(self, name), getattr(other, name)) for name in names if getattr(self, name) is not None]


def _copy(pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """In one call: after each the learner's thread would have to ask the engine's for Python's lock."""
    if pairs:
        torch._foreach_copy_([target for target, _ in pairs], [source for _, source in pairs], non_blocking=True)


def blank_microbatch(shape: Shape, device: torch.device) -> Microbatch:
    """One in which every row is padding."""
    rows, length, width, nodes = shape
    apart = nodes is None

    def zeros(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(size, dtype=dtype, device=device)

    scored = (rows, width) if apart else (shape.scored,)
    return Microbatch(
        token_ids=zeros(*((rows, length) if apart else (1, shape.positions)), dtype=torch.int64),
        predictors=zeros(*scored, dtype=torch.int64),
        targets=zeros(*scored, dtype=torch.int64),
        mask=zeros(rows, width, dtype=torch.bool),
        behaviour_logprobs=zeros(rows, width),
        advantages=zeros(rows),
        token_shares=zeros(rows),
        places=None if apart else zeros(rows, width, dtype=torch.int64),
        tree=None if apart else blank_tree(shape.positions, rows, length, device),
    )
