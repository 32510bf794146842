"""Fused kernels for the training model: liger-kernel's norms, rotary embedding and gated activation.

torch.compile of the layers was tried first: it broke the graph in the attention and compiled every layer anew.
"""

import torch
from transformers import PreTrainedModel


def fuse_kernels(model: PreTrainedModel) -> str | None:
    """Put fused kernels into a model on a CUDA device; returns why it was left as it is, or None.

    Liger replaces Hugging Face's modules process-wide and those of ``model``; nothing but the training model uses them
    in the engine process.
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
    with torch.no_grad():
        apply(rope=True, rms_norm=True, fused_linear_cross_entropy=False, cross_entropy=False, model=model)
    return None
