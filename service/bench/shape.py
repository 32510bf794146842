"""Models of a given shape with random weights, made on this machine and kept in a folder by shape: no hub is asked.

    shape ─► configuration, tokenizer ─► names and sizes of the weights (meta device) ─► shards, one after the other

A reply of such a model has exactly the tokens that were asked for (service.bench.tokenizer). Speed depends on shapes
alone, so it measures like a trained one; what it writes means nothing.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from agent.errors import InvalidInput
from service.named_shapes import NAMED_SHAPES

SHARD_BYTES = 2 * 2**30
WEIGHT_STD = 0.02
_INDEX = "model.safetensors.index.json"
_MAX_POSITIONS = 4096


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder model to be made."""

    name: str
    sizes: Mapping[str, Any]
    """Its ``model_type``, and arguments of that architecture's configuration class."""
    dtype: str = "bfloat16"

    @property
    def configuration(self) -> dict[str, Any]:
        """The sizes, and what makes a reply end at its length alone."""
        return {
            **self.sizes,
            "max_position_embeddings": _MAX_POSITIONS,
            "bos_token_id": None,
            "eos_token_id": None,
            "pad_token_id": 0,
        }


_TINY = {
    "model_type": "llama",
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 384,
    "vocab_size": 1024,
    "tie_word_embeddings": False,
}

SHAPES: Mapping[str, Shape] = {
    "tiny": Shape("tiny", _TINY, dtype="float32"),
    **{name: Shape(name, sizes) for name, sizes in NAMED_SHAPES.items()},
}


def find_shape(name: str) -> Shape:
    """A shape by name. Raises InvalidInput."""
    if name not in SHAPES:
        raise InvalidInput("shape", f"must be one of {', '.join(SHAPES)}, got {name}")
    return SHAPES[name]


def model_folder(shape: Shape, work: Path, *, seed: int = 0) -> Path:
    """The folder of a shape's model below ``work``, made when it is not there.

    Another process makes it: this one never holds torch, nor a context on the GPU that is about to be measured.
    """
    folder = work / "models" / f"{shape.name}-seed{seed}"
    if not folder.exists():
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            pool.submit(write_model, shape, folder, seed=seed).result()
    return folder


def write_model(shape: Shape, folder: Path, *, seed: int = 0, shard_bytes: int = SHARD_BYTES) -> None:
    """Write a whole model folder: to a temporary one, then renamed. At most one shard is in memory at a time.

    Weights are N(0, 0.02), norms 1, biases 0; drawn on the GPU when there is one.
    """
    from service.bench.tokenizer import filled_tokenizer

    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    sizes = _write_configuration(shape, partial)
    _write_weights(sizes, partial, shape.dtype, seed, shard_bytes)
    filled_tokenizer(shape.sizes["vocab_size"]).save_pretrained(partial)
    partial.rename(folder)


def _write_configuration(shape: Shape, folder: Path) -> dict[str, tuple[int, ...]]:
    """Writes `config.json` and `generation_config.json`; returns every weight's size by name."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    config = AutoConfig.for_model(**shape.configuration)
    config.dtype = shape.dtype
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    GenerationConfig(do_sample=True, pad_token_id=0).save_pretrained(folder)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _write_weights(
    sizes: Mapping[str, tuple[int, ...]], folder: Path, dtype_name: str, seed: int, shard_bytes: int
) -> None:
    import torch
    from safetensors.torch import save_file

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator(device).manual_seed(seed)
    dtype: torch.dtype = getattr(torch, dtype_name)
    shards = list(_shards(sizes, shard_bytes // dtype.itemsize))
    places: dict[str, str] = {}
    for number, names in enumerate(shards, start=1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name in names:
            tensor = torch.empty(sizes[name], dtype=dtype, device=device)
            kind = _kind(name, sizes[name])
            if kind == "weight":
                tensor.normal_(0.0, WEIGHT_STD, generator=generator)
            else:
                tensor.fill_(1.0 if kind == "norm" else 0.0)
            tensors[name] = tensor.cpu()
        save_file(tensors, folder / file_name, metadata={"format": "pt"})
        places.update(dict.fromkeys(names, file_name))
    total = sum(_count(size) for size in sizes.values()) * dtype.itemsize
    (folder / _INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": places}))


def _kind(name: str, size: tuple[int, ...]) -> str:
    if name.endswith(".bias"):
        return "bias"
    return "norm" if len(size) == 1 else "weight"


def _shards(sizes: Mapping[str, tuple[int, ...]], max_elements: int) -> Iterator[list[str]]:
    """Names in the order of the model, cut before a shard exceeds ``max_elements``; a larger tensor stands alone."""
    shard: list[str] = []
    filled = 0
    for name, size in sizes.items():
        if shard and filled + _count(size) > max_elements:
            yield shard
            shard, filled = [], 0
        shard.append(name)
        filled += _count(size)
    yield shard


def _count(size: tuple[int, ...]) -> int:
    count = 1
    for length in size:
        count *= length
    return count
