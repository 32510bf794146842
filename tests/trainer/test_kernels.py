"""Fused kernels go into models on a GPU only."""

import torch

from tests.tiny_decoders import CONFIGS, tiny_decoder
from trainer.kernels import fuse_kernels


def test_a_model_on_a_cpu_stays_as_it_is() -> None:
    """The reason comes back; modules, weights and what the model computes are the same."""
    tokens = torch.arange(1, 9).unsqueeze(0)
    for architecture in CONFIGS:
        model = tiny_decoder(architecture)
        kinds = [type(module) for module in model.modules()]
        forwards = [getattr(module.forward, "__func__", module.forward) for module in model.modules()]
        with torch.no_grad():
            expected = model(input_ids=tokens).logits
        assert fuse_kernels(model) == "not a CUDA device"
        assert [type(module) for module in model.modules()] == kinds
        assert [getattr(module.forward, "__func__", module.forward) for module in model.modules()] == forwards
        with torch.no_grad():
            assert torch.equal(model(input_ids=tokens).logits, expected)
