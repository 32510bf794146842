"""Which tokens of a batch use which adapter slot, laid out for vLLM's LoRA kernels without asking the GPU.

vLLM makes this layout on the device and reads it back several times for every batch that differs from the one before:
each time the engine's thread waits until the step that runs has ended. The slots are known on the host, so it is made
there and copied over, and nothing waits.

    T  tokens of the batch        S  adapter slots; tokens without an adapter form one more group, slot -1
"""

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Indices = npt.NDArray[np.int32]


class KernelMetadata(Protocol):
    """What the kernels read: vLLM's LoRAKernelMeta. The first five lie on the device, the others on the host."""

    token_lora_mapping: Tensor
    token_indices_sorted_by_lora_ids: Tensor
    active_lora_ids: Tensor
    num_tokens_per_lora: Tensor
    lora_token_start_loc: Tensor
    no_lora_flag_cpu: Tensor
    num_active_loras_cpu: Tensor
    captured_lora_counts: list[int]


@dataclass(frozen=True, slots=True)
class LoraLayout:
    """The layout of one batch."""

    slots: Indices
    """[T]."""
    order: Indices
    """[T]: tokens by slot, in the order of the batch within a slot."""
    groups: Indices
    """[S + 1]: slots that occur, ascending; -1 behind them."""
    sizes: Indices
    """[S + 1]: tokens of each group; 0 behind them."""
    starts: Indices
    """[S + 2]: where each group begins in ``order``; behind the last one 0."""
    num_groups: int

    @property
    def without_adapters(self) -> bool:
        return self.num_groups == 1 and int(self.groups[0]) == -1


def token_slots(adapter_ids: Sequence[int], slot_of: Mapping[int, int]) -> Indices:
    """[T] slots of tokens whose adapters are these; 0 is no adapter, slot -1.

    Raises:
        KeyError: an adapter without a slot.
    """
    ids = np.fromiter(adapter_ids, np.int32, len(adapter_ids))
    slots = np.full(len(ids), -1, np.int32)
    for adapter in set(adapter_ids) - {0}:
        slots[ids == adapter] = slot_of[adapter]
    return slots


def lora_layout(slots: Indices, *, num_slots: int) -> LoraLayout:
    """The layout of a batch.

    Args:
        slots: [T], each from -1 to ``num_slots`` - 1.
    """
    occurring, counts = np.unique(slots, return_counts=True)
    groups = np.full(num_slots + 1, -1, np.int32)
    sizes, starts = np.zeros(num_slots + 1, np.int32), np.zeros(num_slots + 2, np.int32)
    groups[: len(occurring)] = occurring
    sizes[: len(occurring)] = counts
    starts[1 : len(occurring) + 1] = counts.cumsum()
    order = np.argsort(slots, kind="stable").astype(np.int32)
    return LoraLayout(slots, order, groups, sizes, starts, len(occurring))


def write_layout(layout: LoraLayout, metadata: KernelMetadata) -> None:
    """Hand a batch's layout to the kernels, on the current stream. Returns before the copies are done.

    The number of groups is rounded up to one that graphs were captured for.
    """
    metadata.no_lora_flag_cpu.fill_(layout.without_adapters)
    if layout.without_adapters:
        metadata.num_active_loras_cpu.fill_(0)
        return
    captured = metadata.captured_lora_counts
    place = bisect.bisect_left(captured, layout.num_groups)
    metadata.num_active_loras_cpu.fill_(captured[place] if place < len(captured) else layout.num_groups)
    for target, values in (
        (metadata.token_lora_mapping, layout.slots),
        (metadata.token_indices_sorted_by_lora_ids, layout.order),
        (metadata.active_lora_ids, layout.groups),
        (metadata.num_tokens_per_lora, layout.sizes),
        (metadata.lora_token_start_loc, layout.starts),
    ):
        source = torch.from_numpy(values)
        if target.is_cuda:
            source = source.pin_memory()
        target[: len(values)].copy_(source, non_blocking=True)
