"""Causal attention of the training model, without masks.

    B  sequences    N  query heads    G  key and value heads    L  positions    D  a head's width

Sequences are padded on the right and never packed, so that what comes later is all there is to hide; those that begin
alike are read along the paths of their tree (trainer.prefix_tree). transformers makes a mask of [B, 1, L, L] all the
same whenever a CUDA graph is captured, since it cannot look for packed sequences then; a mask keeps torch from
FlashAttention and has it copy keys and values for every query head.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.backends.cuda import SDPAParams, can_use_flash_attention, enable_cudnn_sdp
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from trainer.prefix_tree import PrefixTree

CAUSAL = "coloq_causal"
"""Name of the attention in transformers; it has no function that makes masks."""


def causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    tree: PrefixTree | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """See transformers' sdpa_attention_forward, for right-padded sequences without a cache.

    Args:
        query: [B, N, L, D], or with a tree of U nodes [1, N, U, D].
        key: [B, G, L, D], or [1, G, U, D], as is ``value``.
        attention_mask: None.
        sliding_window: how many positions one sees, itself included; None for all before it.
        tree: where the sequences' positions are among the nodes.

    Returns:
        [B, L, N, D], or [1, U, N, D], and no weights.
    """
    if tree is not None:
        query, key, value = tree.queries(query), tree.keys(key), tree.keys(value)
    visible = _visible_in_window(query, sliding_window)
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.is_cuda and not _flash_takes(query, key, value, visible):
        group = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
        grouped = False
    seen = scaled_dot_product_attention(
        query, key, value, attn_mask=visible, is_causal=visible is None, scale=scaling, enable_gqa=grouped
    )
    seen = seen.transpose(1, 2).contiguous()
    return (seen if tree is None else tree.outputs(seen)), None


def register() -> None:
    """Make the attention known to transformers as ``CAUSAL``; on CUDA, do without cuDNN's.

    cuDNN's was reported to go wrong silently with few key and value heads (pytorch/pytorch issue 193893).
    """
    AttentionInterface.register(CAUSAL, causal_attention)
    enable_cudnn_sdp(False)


def _visible_in_window(query: Tensor, window: int | None) -> Tensor | None:
    """[L, L], True where a position is seen; None where the window is as long as the sequence."""
    length = query.shape[2]
    if window is None or length <= window:
        return None
    position = torch.arange(length, device=query.device)
    distance = position[:, None] - position
    return (distance >= 0) & (distance < window)


def _flash_takes(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> bool:
    """Whether FlashAttention takes grouped heads as they are; torch's other fast kernel does not."""
    return bool(can_use_flash_attention(SDPAParams(query, key, value, mask, 0.0, mask is None, True)))
