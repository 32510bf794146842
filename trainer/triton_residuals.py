"""Triton's version of trainer.head.residuals: two passes over the logits, in place, instead of seven.

    N  rows        V  vocabulary

Import it on a CUDA device only.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 4096


def residuals_in_place(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """See trainer.head.residuals. The residual replaces the logits, which must be contiguous and finite."""
    rows, columns = logits.shape
    logprobs, entropies = torch.empty(2, rows, dtype=torch.float32, device=logits.device)
    _residuals[(rows,)](logits, targets, logprobs, entropies, columns, 1 / temperature, BLOCK=_BLOCK, num_warps=8)
    return logprobs, entropies, logits


@triton.jit  # type: ignore[untyped-decorator]
def _residuals(logits, targets, logprobs, entropies, columns, inverse_temperature, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803 - Triton's way
    row = tl.program_id(0).to(tl.int64)
    base = logits + row * columns
    target = tl.load(targets + row)
    largest = float("-inf")
    total = 0.0
    weighted = 0.0
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        z = tl.load(base + at, mask=at < columns, other=float("-inf")).to(tl.float32) * inverse_temperature
        larger = tl.maximum(largest, tl.max(z, axis=0))
        exponentials = tl.exp(z - larger)
        shrunk = tl.exp(largest - larger)
        total = total * shrunk + tl.sum(exponentials, axis=0)
        weighted = weighted * shrunk + tl.sum(tl.where(at < columns, exponentials * z, 0.0), axis=0)
        largest = larger
    normaliser = largest + tl.log(total)
    tl.store(entropies + row, normaliser - weighted / total)
    chosen = tl.load(base + target).to(tl.float32) * inverse_temperature
    tl.store(logprobs + row, chosen - normaliser)
    for start in range(0, columns, BLOCK):
        at = start + tl.arange(0, BLOCK)
        z = tl.load(base + at, mask=at < columns, other=0.0).to(tl.float32) * inverse_temperature
        residual = tl.where(at == target, 1.0, 0.0) - tl.exp(z - normaliser)
        tl.store(base + at, residual, mask=at < columns)
