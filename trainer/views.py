"""The training model as views of the engine's weights: no second copy.

vLLM fuses some of a Hugging Face model's matrices by rows and pads the vocabulary:

    qkv_proj      = [q_proj | k_proj | v_proj]
    gate_up_proj  = [gate_proj | up_proj]
    embed_tokens, lm_head: the first ``vocab_size`` rows

Every Hugging Face parameter becomes a view of those rows, so the two models share storage. With LoRA enabled, vLLM's
names carry ``.base_layer``. Knows nothing of vLLM's classes: it is given names and tensors.
"""

from collections.abc import Iterable, Mapping

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from agent.errors import TrainerFailed


def build_training_model(config: PretrainedConfig, engine_parameters: Mapping[str, Tensor]) -> PreTrainedModel:
    """A Hugging Face model whose every parameter is a view of the engine's tensors.

    Args:
        config: the model's text configuration.
        engine_parameters: vLLM's ``named_parameters()``.

    Raises:
        TrainerFailed: naming the parameters that have no home in the engine, or another shape there.
    """
    with init_empty_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.tie_weights()
    home = _EngineRows(config, engine_parameters)
    misfits: list[str] = []
    for name, parameter in list(model.named_parameters()):
        view = home.find(name)
        if view is None:
            misfits.append(f"{name} has no home in the engine's model")
        elif view.shape != parameter.shape:
            misfits.append(f"{name} must be {list(parameter.shape)}, the engine holds {list(view.shape)}")
        else:
            _set_parameter(model, name, nn.Parameter(view, requires_grad=False))
    if misfits:
        raise TrainerFailed(
            f"cannot train a {config.architectures or config.model_type}: {'; '.join(misfits[:5])}"
            + (f"; and {len(misfits) - 5} more" if len(misfits) > 5 else "")
        )
    model.tie_weights()
    device = next(iter(engine_parameters.values())).device
    for module in model.modules():
        for key, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(key, buffer.to(device), persistent=False)
    model.eval()
    return model


def shared_with(views: Iterable[Tensor], owners: Iterable[Tensor]) -> int:
    """How many of ``views`` lie wholly inside the memory of one of ``owners``, by address."""
    ranges = [(owner.data_ptr(), owner.data_ptr() + owner.nbytes) for owner in owners]
    return sum(
        any(start <= view.data_ptr() and view.data_ptr() + view.nbytes <= end for start, end in ranges)
        for view in views
    )


def _set_parameter(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, parameter)


class _EngineRows:
    """Finds the engine's rows of a Hugging Face parameter."""

    def __init__(self, config: PretrainedConfig, parameters: Mapping[str, Tensor]) -> None:
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        query = config.num_attention_heads * head_dim
        key_value = config.num_key_value_heads * head_dim
        inner = config.intermediate_size
        self._rows: dict[str, tuple[str, int, int]] = {
            "q_proj": ("qkv_proj", 0, query),
            "k_proj": ("qkv_proj", query, query + key_value),
            "v_proj": ("qkv_proj", query + key_value, query + 2 * key_value),
            "gate_proj": ("gate_up_proj", 0, inner),
            "up_proj": ("gate_up_proj", inner, 2 * inner),
            "embed_tokens": ("embed_tokens", 0, config.vocab_size),
            "lm_head": ("lm_head", 0, config.vocab_size),
        }
        self._parameters = parameters

    def find(self, name: str) -> Tensor | None:
        """The view of a parameter, or None when the engine has no such rows."""
        path, _, leaf = name.rpartition(".")
        parent, _, module = path.rpartition(".")
        fused, start, end = self._rows.get(module, (module, None, None))
        stem = f"{parent}.{fused}" if parent else fused
        for candidate in (f"{stem}.{leaf}", f"{stem}.base_layer.{leaf}"):
            if candidate in self._parameters:
                with torch.inference_mode(False):
                    return self._parameters[candidate].data[start:end]
        return None
