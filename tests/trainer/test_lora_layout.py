"""The layout of adapter slots in a batch, and that it is what vLLM's own would be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.lora_layout import lora_layout, token_slots, write_layout


def test_tokens_are_grouped_by_slot() -> None:
    """Slots 2 -1 0 2 2 -1: two tokens without an adapter, one of slot 0, three of slot 2; four slots in all."""
    layout = lora_layout(np.array([2, -1, 0, 2, 2, -1], np.int32), num_slots=4)
    assert layout.order.tolist() == [1, 5, 2, 0, 3, 4]
    assert layout.groups.tolist() == [-1, 0, 2, -1, -1]
    assert layout.sizes.tolist() == [2, 1, 3, 0, 0]
    assert layout.starts.tolist() == [0, 2, 3, 6, 0, 0]
    assert layout.num_groups == 3
    assert not layout.without_adapters


def test_a_batch_without_adapters_is_known_as_one() -> None:
    """One group, of slot -1; a batch of one adapter alone is another thing."""
    assert lora_layout(np.array([-1, -1], np.int32), num_slots=2).without_adapters
    assert not lora_layout(np.array([0, 0], np.int32), num_slots=2).without_adapters


def test_adapters_are_found_by_their_slots() -> None:
    """Adapter 7 lies in slot 1, adapter 9 in slot 0; 0 is none."""
    assert token_slots((0, 7, 7, 9), {7: 1, 9: 0}).tolist() == [-1, 1, 1, 0]
    with pytest.raises(KeyError):
        token_slots((8,), {7: 1})


@settings(deadline=None)  # the first example imports vLLM
@given(st.lists(st.lists(st.integers(-1, 6), min_size=1, max_size=40), min_size=1, max_size=3))
def test_the_kernels_read_what_they_would_from_vllm(batches: list[list[int]]) -> None:
    """One batch after another in the same memory: where the kernels look, both hold the same."""
    from vllm.lora.ops.triton_ops.lora_kernel_metadata import LoRAKernelMeta

    captured = [1, 2, 4, 8]
    ours, theirs = (LoRAKernelMeta.make(7, 64, "cpu", captured_lora_counts=captured) for _ in range(2))
    for batch in batches:
        write_layout(lora_layout(np.array(batch, np.int32), num_slots=7), ours)
        theirs.prepare_tensors(torch.tensor(batch))
        assert bool(ours.no_lora_flag_cpu) == bool(theirs.no_lora_flag_cpu)
        assert int(ours.num_active_loras_cpu) == int(theirs.num_active_loras_cpu)
        if ours.no_lora_flag_cpu:
            continue
        for name in ("active_lora_ids", "num_tokens_per_lora"):
            assert getattr(ours, name).tolist() == getattr(theirs, name).tolist()
        num_groups = len(set(batch))
        assert (
            ours.lora_token_start_loc[: num_groups + 1].tolist()
            == theirs.lora_token_start_loc[: num_groups + 1].tolist()
        )
        for name in ("token_lora_mapping", "token_indices_sorted_by_lora_ids"):
            assert getattr(ours, name)[: len(batch)].tolist() == getattr(theirs, name)[: len(batch)].tolist()
