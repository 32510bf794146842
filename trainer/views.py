"""The training model as views of the engine's weights: no second copy.

    engine's parameters ──► homes of the architecture ──► build_training_model   q_proj, k_proj, v_proj, … as views
     qkv_proj, …             (trainer/architectures.py)   engine_tensors         qkv_proj, … as they are

The two models share storage, so that what one writes the other reads. Both functions refuse a model unless every
parameter of one side belongs to the other, in shape and number of rows: nothing is trained on a guess. With LoRA
enabled, the engine's names carry ``.base_layer``. Knows nothing of vLLM's classes: it is given names and tensors.
"""

import copy
from collections.abc import Iterable, Mapping

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from agent.errors import TrainerFailed
from trainer import attention
from trainer.architectures import Home, architecture_of

_NAMED_MISFITS = 5
_COMPUTE_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def build_training_model(config: PretrainedConfig, engine_parameters: Mapping[str, Tensor]) -> PreTrainedModel:
    """A Hugging Face model whose every parameter is a view of the engine's tensors, frozen and in evaluation mode.

    Args:
        config: the model's text configuration; left as it is.
        engine_parameters: vLLM's ``named_parameters()``.

    Raises:
        TrainerFailed: the architecture has no map, or parameters (which are named) have no counterpart on the other
            side, or another shape or dtype there.
    """
    engine = _EngineParameters(config, engine_parameters)
    model = _blank_model(config, engine.dtype)
    views: dict[str, Tensor] = {}
    misfits: list[str] = []
    for name, parameter in model.named_parameters():
        view = engine.view(name)
        if view is None:
            misfits.append(_homeless(name))
        elif view.shape != parameter.shape:
            misfits.append(f"{name} must be {list(parameter.shape)}, the engine holds {list(view.shape)}")
        elif view.dtype != engine.dtype:
            misfits.append(f"{name} must be {engine.dtype}, the engine holds {view.dtype}")
        else:
            views[name] = view
    engine.refuse(misfits + engine.surplus())
    for name, view in views.items():
        _set_parameter(model, name, nn.Parameter(view, requires_grad=False))
    model.tie_weights()
    _move_buffers(model, next(iter(views.values())).device)
    model.eval()
    return model


def engine_tensors(config: PretrainedConfig, engine_parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What full fine-tuning updates: the engine's own parameters, each once, without rows that pad the vocabulary.

    Args:
        config: the model's text configuration.
        engine_parameters: vLLM's ``named_parameters()``.

    Returns:
        Contiguous views by the engine's names without ``.base_layer``. Each covers exactly the rows that the views of
        ``build_training_model`` cover.

    Raises:
        TrainerFailed: the architecture has no map, a parameter has no home in the engine, or training would leave one
            of the engine's floating-point parameters behind.
    """
    engine = _EngineParameters(config, engine_parameters)
    engine.refuse(engine.missing() + engine.surplus())
    return engine.covered()


def shared_with(views: Iterable[Tensor], owners: Iterable[Tensor]) -> int:
    """How many of ``views`` lie wholly inside the memory of one of ``owners``, by address."""
    ranges = [(owner.data_ptr(), owner.data_ptr() + owner.nbytes) for owner in owners]
    return sum(
        any(start <= view.data_ptr() and view.data_ptr() + view.nbytes <= end for start, end in ranges)
        for view in views
    )


def _blank_model(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """The model with parameters on the meta device and buffers computed on the CPU.

    The configuration is copied, since the engine's is the same object and building a model writes to it. ``dtype`` is
    the engine's, which need not be the checkpoint's: Gemma 3 rounds the scale of its embeddings to it.
    """
    attention.register()
    with init_empty_weights():
        model: PreTrainedModel = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), attn_implementation=attention.CAUSAL, dtype=dtype
        )
    model.tie_weights()
    return model


def _move_buffers(model: nn.Module, device: torch.device) -> None:
    for module in model.modules():
        for key, buffer in list(module.named_buffers(recurse=False)):
            module.register_buffer(key, buffer.to(device), persistent=False)


def _set_parameter(model: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(path), leaf, parameter)


def _homeless(name: str) -> str:
    return f"{name} has no home in the engine's model"


class _EngineParameters:
    """The engine's parameters, seen through the map of their architecture."""

    def __init__(self, config: PretrainedConfig, parameters: Mapping[str, Tensor]) -> None:
        architecture = architecture_of(config)
        self._name = architecture.name
        self._homes = architecture.homes(config)
        self._parameters = {name.replace(".base_layer.", "."): value for name, value in parameters.items()}
        self._covered = _covered_rows(self._homes.values())

    @property
    def dtype(self) -> torch.dtype:
        """What the engine computes in: the embedding's dtype, unless that is quantised (which then misfits)."""
        embedding = self._parameters.get("model.embed_tokens.weight")
        return embedding.dtype if embedding is not None and embedding.dtype in _COMPUTE_DTYPES else torch.float32

    def view(self, name: str) -> Tensor | None:
        """The rows of a Hugging Face parameter, or None when the engine has no such parameter."""
        home = self._homes.get(name)
        return None if home is None or home.parameter not in self._parameters else self._rows(home)

    def covered(self) -> dict[str, Tensor]:
        """Every parameter that has views, once, from its first row to the last that a view reads."""
        return {name: self._rows(home) for name, home in self._covered.items()}

    def missing(self) -> list[str]:
        """What the map expects of the engine and it does not have."""
        misfits: list[str] = []
        for name, home in self._homes.items():
            view = self.view(name)
            if view is None:
                misfits.append(_homeless(name))
            elif len(view) < home.stop - home.start:
                misfits.append(f"{name} must have {home.stop - home.start} rows, the engine holds {len(view)}")
        return misfits

    def surplus(self) -> list[str]:
        """What the engine computes with and no view reaches."""
        misfits: list[str] = []
        for name, value in self._parameters.items():
            home = self._covered.get(name)
            if home is None and value.is_floating_point():
                misfits.append(f"the engine's {name} has no counterpart in the training model")
            elif home is not None and not home.padded and len(value) > home.stop:
                misfits.append(f"the engine's {name} must have {home.stop} rows, it holds {len(value)}")
        return misfits

    def refuse(self, misfits: list[str]) -> None:
        """Raises TrainerFailed unless ``misfits`` is empty."""
        if misfits:
            named, others = misfits[:_NAMED_MISFITS], misfits[_NAMED_MISFITS:]
            more = [f"and {len(others)} more"] if others else []
            raise TrainerFailed(f"cannot train a {self._name}: {'; '.join(named + more)}")

    def _rows(self, home: Home) -> Tensor:
        with torch.inference_mode(False):
            return self._parameters[home.parameter].data[home.start : home.stop]


def _covered_rows(homes: Iterable[Home]) -> dict[str, Home]:
    """Per parameter of the engine all rows that have a home in it; those follow one another from row 0."""
    covered: dict[str, Home] = {}
    for home in homes:
        last = covered.get(home.parameter)
        covered[home.parameter] = Home(home.parameter, 0, max(home.stop, last.stop if last else 0), home.padded)
    return covered
