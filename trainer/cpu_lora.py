"""LoRA on a CPU for a batch in which few adapters occur: one pair of matrix products per adapter and slice.

vLLM's CPU operators gather each token's own copy of A and B and, in a decode batch, apply the last slot to tokens that
have no adapter (index -1). This does the same arithmetic once per adapter, and leaves those tokens alone.

    N  tokens        I  input size        R  rank        O  output size of a slice        S  slots
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

_FEW_TOKENS = 32
"""Up to so many the products are made in fp32: a CPU's bfloat16 product of this size costs more to begin than to do."""


@dataclass(frozen=True, slots=True)
class SlotTokens:
    """The tokens of a step that use one slot."""

    slot: int
    rows: Tensor | None
    """[N] bool; None for all."""


def by_slot(slots: Tensor) -> list[SlotTokens]:
    """A step's tokens by slot, without those that have none.

    Args:
        slots: [N] slot of each token; negative for none.
    """
    found = slots.unique().tolist()
    if len(found) == 1:
        return [SlotTokens(slot, None) for slot in found if slot >= 0]
    return [SlotTokens(slot, slots == slot) for slot in found if slot >= 0]


def add_lora_linear(
    y: Tensor,
    x: Tensor,
    lora_a: Sequence[Tensor],
    lora_b: Sequence[Tensor],
    *,
    scale: float,
    slice_sizes: Sequence[int],
    tokens: Sequence[SlotTokens],
) -> None:
    """Add every token's LoRA update to ``y`` in place: y[n, slice] += scale * x[n] A^T B^T of the token's slot.

    Args:
        y: [N, sum of slice_sizes].
        x: [N, I].
        lora_a: per slice [S, 1, R, I].
        lora_b: per slice [S, 1, O, R].
    """
    dtype = torch.float32 if len(x) <= _FEW_TOKENS else x.dtype
    for each in tokens:
        inputs = (x if each.rows is None else x[each.rows]).to(dtype)
        start = 0
        for a, b, size in zip(lora_a, lora_b, slice_sizes, strict=True):
            narrow = linear(inputs, a[each.slot, 0].to(dtype)).mul_(scale)
            update = linear(narrow, b[each.slot, 0, :size].to(dtype))
            if each.rows is None:
                y[:, start : start + size] += update
            else:
                y[each.rows, start : start + size] += update.to(y.dtype)
            start += size
