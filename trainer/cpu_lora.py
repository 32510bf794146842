"""LoRA on a CPU for a batch in which few adapters occur: one pair of matrix products per adapter and slice.

vLLM's CPU operators gather each token's own copy of A and B and, in a decode batch, apply the last slot to tokens that
have no adapter (index -1). This does the same arithmetic once per adapter, and leaves those tokens alone.

    N  tokens        I  input size        R  rank        O  output size of a slice        S  slots
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def add_lora_linear(
    y: Tensor,
    x: Tensor,
    lora_a: Sequence[Tensor],
    lora_b: Sequence[Tensor],
    *,
    scale: float,
    slice_sizes: Sequence[int],
    slots: Tensor,
) -> None:
    """Add every token's LoRA update to ``y`` in place: y[n, slice] += scale * x[n] A^T B^T of the token's slot.

    Args:
        y: [N, sum of slice_sizes].
        x: [N, I].
        lora_a: per slice [S, 1, R, I].
        lora_b: per slice [S, 1, O, R].
        slots: [N] slot of each token; negative for none.
    """
    for slot in slots.unique().tolist():
        if slot < 0:
            continue
        rows = slots == slot
        everyone = bool(rows.all())
        inputs = x if everyone else x[rows]
        start = 0
        for a, b, size in zip(lora_a, lora_b, slice_sizes, strict=True):
            update = torch.nn.functional.linear(inputs, a[slot, 0].to(inputs.dtype)) * scale
            update = torch.nn.functional.linear(update, b[slot, 0].to(inputs.dtype))[:, :size]
            if everyone:
                y[:, start : start + size] += update
            else:
                y[rows, start : start + size] += update
            start += size
