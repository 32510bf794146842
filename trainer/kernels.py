"""Fused kernels for the training model: liger-kernel's norms, rotary embedding and gated activation.

torch.compile of the layers was tried first: it broke the graph in the attention and compiled every layer anew.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def fuse_kernels(model: PreTrainedModel) -> str | None:
    """Put fused kernels into a model on a CUDA device; returns why it was left as it is, or None.

    Liger replaces Hugging Face's modules process-wide beside those of ``model``. That is undone: a reward model of the
    same family in main memory would be built of kernels that cannot read it.
    """
    if model.device.type != "cuda":
        return "not a CUDA device"
    try:
        from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN
    except ImportError as error:
        return f"liger-kernel cannot be imported: {error}"
    apply = MODEL_TYPE_TO_APPLY_LIGER_FN.get(model.config.model_type)
    if apply is None:
        return f"liger-kernel has no kernels for {model.config.model_type}"
    code = sys.modules[type(model).__module__]
    before = dict(vars(code))
    with torch.no_grad():
        apply(rope=True, rms_norm=True, fused_linear_cross_entropy=False, cross_entropy=False, model=model)
    restore_for_others(code, before)
    return None


def restore_for_others(code: ModuleType, before: dict[str, Any]) -> None:
    """Give a model family's module its own classes back, and its own functions to tensors in main memory.

    Functions are looked up in the module by every model at each call, so that they must serve both.

    Args:
        before: the module's names as they were before kernels were fused.
    """
    for name, own in before.items():
        fused = getattr(code, name)
        if fused is not own:
            setattr(code, name, own if isinstance(own, type) else _by_device(own, fused))


def _by_device(own: Callable[..., Any], fused: Callable[..., Any]) -> Callable[..., Any]:
    def chosen(first: Tensor, *rest: Any, **named: Any) -> Any:
        return (own if first.device.type == "cpu" else fused)(first, *rest, **named)

    return chosen
