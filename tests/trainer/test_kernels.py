"""Fused kernels go into models on a GPU only."""

from types import ModuleType

import torch
from torch import Tensor, nn

from tests.tiny_decoders import CONFIGS, tiny_decoder
from trainer.kernels import fuse_kernels, restore_for_others


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


class _OwnNorm(nn.Module):
    """What a family builds its models of."""


class _FusedNorm(nn.Module):
    """What is put in its place."""


def _own_rotary(q: Tensor, k: Tensor) -> str:
    return "own"


def _fused_rotary(q: Tensor, k: Tensor) -> str:
    return "fused"


def test_models_in_main_memory_keep_their_familys_own_code() -> None:
    """Fusing one model replaces a family's class and function. Models that are built later get its own class; its own
    function serves tensors of the CPU, the fused one all others, also when a second model is fused. What was not
    replaced stays as it is."""
    code = ModuleType("family")
    code.Norm, code.rotary, code.LIMIT = _OwnNorm, _own_rotary, 3  # type: ignore[attr-defined]
    for _ in range(2):
        before = dict(vars(code))
        code.Norm, code.rotary = _FusedNorm, _fused_rotary  # type: ignore[attr-defined]
        restore_for_others(code, before)
    here, elsewhere = torch.ones(1), torch.ones(1, device="meta")
    assert (code.Norm, code.LIMIT) == (_OwnNorm, 3)
    assert (code.rotary(here, here), code.rotary(elsewhere, elsewhere)) == ("own", "fused")
