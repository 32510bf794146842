"""Sequences that begin alike, as a tree of tokens: what they share goes through the model once.

    sequences      s a b | c d        U  nodes      B  sequences      L  padded length
                   s a b | e
                   s f   | g h        under causal attention what the model makes of a token depends on the path from
                                      the root to it alone, and so do gradients, which add up where paths meet
    nodes          s a b c d e f g h

The siblings of a GRPO group share their prompt, and prompts of one tenant share how they begin. Every layer but the
attention works on single positions, so that nodes take the place of positions; the attention reads its queries, keys
and values along the paths, as if each sequence stood there by itself, and what it makes of a node is taken from one of
the sequences that pass through it, the node's owner. Prompts shared by a group: "Prefix Grouper" (arXiv 2506.05433);
trees: "Tree Training" (arXiv 2511.00413).
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """Where nodes and positions are in one another."""

    depths: Tensor
    """[1, U] int64: each node's position in its sequences; padding is 0."""
    paths: Tensor
    """[B, L] int64: the node of each position. Behind a sequence's end it is any one."""
    owners: Tensor
    """[U] int64: index into the flattened [B * L] positions of the one that stands for the node; padding is 0."""
    borrowed: Tensor
    """[B * L, 1] bool: the position stands for no node, but for another sequence's or for padding."""
    padding: Tensor
    """[U, 1] bool: no sequence passes through."""

    @property
    def tensors(self) -> list[Tensor]:
        """All of it."""
        return [getattr(self, item.name) for item in fields(self)]

    def queries(self, nodes: Tensor) -> Tensor:
        """Queries of all positions of those of the nodes, [1, N, U, D] to [B, N, L, D]. Only owners' have gradients."""
        return self._along_paths(nodes, shared=False)

    def keys(self, nodes: Tensor) -> Tensor:
        """Keys or values likewise; the gradients of a node's positions add up."""
        return self._along_paths(nodes, shared=True)

    def outputs(self, positions: Tensor) -> Tensor:
        """The owners', [B, L, N, D] to [1, U, N, D]."""
        owned = _OfOwners.apply(positions.flatten(0, 1).flatten(1), self)  # type: ignore[no-untyped-call]
        return owned.view(1, -1, *positions.shape[2:])  # type: ignore[no-any-return]

    def _along_paths(self, nodes: Tensor, *, shared: bool) -> Tensor:
        _, num_heads, _, width = nodes.shape
        features = nodes.transpose(1, 2).flatten(0, 1).flatten(1)
        found = _AlongPaths.apply(features, self, shared)  # type: ignore[no-untyped-call]
        return found.view(*self.paths.shape, num_heads, width).transpose(1, 2)  # type: ignore[no-any-return]


def blank_tree(num_nodes: int, num_sequences: int, length: int, device: torch.device) -> PrefixTree:
    """One in which everything is padding."""

    def zeros(*size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.int64, device=device)

    def yes(size: int) -> Tensor:
        return torch.ones(size, 1, dtype=torch.bool, device=device)

    return PrefixTree(
        zeros(1, num_nodes), zeros(num_sequences, length), zeros(num_nodes), yes(num_sequences * length), yes(num_nodes)
    )


class _AlongPaths(torch.autograd.Function):
    """[U, F] to [B * L, F]."""

    @staticmethod
    def forward(ctx: Any, nodes: Tensor, tree: PrefixTree, shared: bool) -> Tensor:
        ctx.tree, ctx.shared = tree, shared
        return nodes.index_select(0, tree.paths.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tree: PrefixTree = ctx.tree
        if not ctx.shared:
            return gradient.index_select(0, tree.owners).masked_fill_(tree.padding, 0), None, None
        sums = gradient.new_zeros((len(tree.owners), gradient.shape[1]), dtype=torch.float32)
        sums.index_add_(0, tree.paths.flatten(), gradient.float())
        return sums.to(gradient.dtype), None, None


class _OfOwners(torch.autograd.Function):
    """[B * L, F] to [U, F]."""

    @staticmethod
    def forward(ctx: Any, positions: Tensor, tree: PrefixTree) -> Tensor:
        ctx.tree = tree
        return positions.index_select(0, tree.owners)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tree: PrefixTree = ctx.tree
        return gradient.index_select(0, tree.paths.flatten()).masked_fill_(tree.borrowed, 0), None
