"""Attention without masks computes what transformers does with them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import masking_utils

from tests.tiny_decoders import CONFIGS, tiny_decoder
from trainer import attention

IDS = torch.tensor([[1, 5, 9, 40, 3, 17, 17, 30, 2, 8, 11, 4, 4, 23], [7, 7, 2, 31, 6, 1, 9, 12, 40, 3, 0, 0, 0, 0]])
WINDOWS: dict[str, dict[str, Any]] = {
    "MistralForCausalLM": {"sliding_window": 5},
    "Gemma3ForCausalLM": {"sliding_window": 5},
    "Qwen2ForCausalLM": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
}
"""Shorter than the sequences, where the architecture has one."""


@pytest.mark.parametrize("architecture", CONFIGS)
def test_logits_and_gradients_are_those_of_masked_attention(architecture: str) -> None:
    """Grouped heads, windows, right padding; eager attention with explicit masks is the reference."""
    attention.register()
    results = []
    for implementation in ("eager", attention.CAUSAL):
        model = tiny_decoder(architecture, **WINDOWS.get(architecture, {}))
        model.set_attn_implementation(implementation)
        logits = model(input_ids=IDS, use_cache=False).logits[:, :10]
        logits.square().sum().backward()
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append((logits.detach(), gradients))
    (expected, expected_gradients), (found, found_gradients) = results
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_gradients, expected_gradients, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_no_mask_is_made_while_a_graph_is_captured(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers makes one then, for fear of packed sequences; this attention never gets it."""
    attention.register()
    masks: list[Tensor | None] = []
    attend = functional.scaled_dot_product_attention

    def noting(*args: Any, **kwargs: Any) -> Tensor:
        masks.append(kwargs.get("attn_mask"))
        return attend(*args, **kwargs)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", noting)
    monkeypatch.setattr(functional, "scaled_dot_product_attention", noting)
    monkeypatch.setattr(masking_utils, "is_tracing", lambda *_: True)
    model = tiny_decoder(architecture, **({"sliding_window": 32} if architecture == "Gemma3ForCausalLM" else {}))
    for implementation, masked in (("sdpa", True), (attention.CAUSAL, False)):
        masks.clear()
        model.set_attn_implementation(implementation)
        model(input_ids=IDS, use_cache=False)
        assert masks
        assert [mask is not None for mask in masks] == [masked] * len(masks)


def test_a_written_model_does_not_name_the_attention() -> None:
    """A policy's folder is loaded elsewhere, where nobody knows it."""
    attention.register()
    model = tiny_decoder("LlamaForCausalLM")
    model.set_attn_implementation(attention.CAUSAL)
    assert attention.CAUSAL not in str(model.config.to_dict())
