"""Sizes of a model from its configuration alone: Hugging Face's own class is built on the meta device and read.

    config.json, a built-in shape ─► Hugging Face configuration ─► model on the meta device ─► ModelShape

No weight is read or made. Of a model with other parts (images) only the language model is seen.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from agent.errors import InvalidConfig
from service.named_shapes import NAMED_SHAPES
from trainer.model_shape import LinearShape, ModelShape

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig


def find_shape(name: str) -> ModelShape:
    """The shape behind a name: a built-in shape, a folder, or a Hugging Face id.

    Raises:
        InvalidConfig: there is no such configuration here, and it could not be fetched; or it is of no language model.
    """
    if name in NAMED_SHAPES and not Path(name).is_dir():
        from transformers import AutoConfig

        return shape_of(AutoConfig.for_model(**NAMED_SHAPES[name]))
    return read_shape(name)


def read_shape(model: str) -> ModelShape:
    """The shape of a folder's or Hugging Face id's ``config.json``.

    Raises:
        InvalidConfig: there is no such configuration here, and it could not be fetched; or it is of no language model.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        if model in NAMED_SHAPES:
            reason = "that names sizes for `coloq plan` and benches, and has no weights"
        raise InvalidConfig(
            "engine.model",
            "must be a folder with config.json, a Hugging Face id that is cached or reachable, an embedded model's "
            f"name or, for `coloq plan` alone, one of {', '.join(NAMED_SHAPES)}; got {model!r}: {reason}",
        ) from error
    return shape_of(config)


def shape_of(config: "PretrainedConfig") -> ModelShape:
    """The shape of a Hugging Face configuration's language model.

    Raises:
        InvalidConfig: Hugging Face has no causal language model for it, or the model has no attention.
    """
    from accelerate import init_empty_weights
    from transformers import AutoModelForCausalLM

    text = config.get_text_config()
    try:
        with init_empty_weights():
            model = AutoModelForCausalLM.from_config(text)
    except ValueError as error:
        raise InvalidConfig("engine.model", f"must be a causal language model, got a {config.model_type}") from error
    model.tie_weights()
    heads = getattr(text, "num_attention_heads", None)
    if heads is None:
        raise InvalidConfig("engine.model", f"must be a model with attention heads, got a {config.model_type}")
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    linears = tuple(_layer_linears(model))
    norms = list(_norms(model, heads, kv_heads))
    widest = max((linear.out_features for linear in linears), default=4 * text.hidden_size)  # GPT-2 has no Linear
    inner = getattr(text, "intermediate_size", None) or widest
    return ModelShape(
        architecture=type(model).__name__,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        num_layers=text.num_hidden_layers,
        hidden_size=text.hidden_size,
        intermediate_size=inner,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=text.vocab_size,
        tied_head=bool(text.tie_word_embeddings),
        norm_features=sum(rows * size for rows, size in norms),
        norm_rows=sum(rows for rows, _ in norms),
        linears=linears,
    )


def _layer_linears(model: "nn.Module") -> Iterator[LinearShape]:
    """Linear layers inside numbered layers, equal ones of different layers together."""
    from torch import nn

    counts = Counter(
        (inside, module.in_features, module.out_features)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and (inside := _inside_layer(path)) is not None
    )
    for (name, in_features, out_features), count in counts.items():
        yield LinearShape(name, in_features, out_features, count)


def _norms(model: "nn.Module", heads: int, kv_heads: int) -> Iterator[tuple[int, int]]:
    """Rows per position, and features of a row, of each norm of the first decoder layer."""
    for path, parameter in model.named_parameters():
        inside = _inside_layer(path, layer="0")
        if inside is not None and inside.endswith("norm.weight"):
            rows = heads if "q_norm" in inside else kv_heads if "k_norm" in inside else 1
            yield rows, parameter.numel()


def _inside_layer(path: str, layer: str | None = None) -> str | None:
    """What follows a layer's number in a path: ``model.layers.3.mlp.up_proj`` is ``mlp.up_proj``."""
    parts = path.split(".")
    for index, part in enumerate(parts):
        if part.isdigit() and (layer is None or part == layer):
            return ".".join(parts[index + 1 :]) or None
    return None
