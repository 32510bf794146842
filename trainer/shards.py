"""Tensors in safetensors files of at most 2 GiB, written and read one file or one tensor at a time.

Names are those that transformers loads: `model.safetensors`, or `model-00001-of-00002.safetensors` and an index.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from agent.files import write_json

MODEL = "model"
"""Stem of the files that hold a model's weights."""
_SHARD_BYTES = 2 * 2**30


def write_shards(folder: Path, tensors: Mapping[str, Tensor], *, stem: str = MODEL) -> None:
    """Write tensors of any device; copied to host memory one file at a time. Raises OSError."""
    shards = _split(tensors)
    names = [f"{stem}.safetensors"]
    if len(shards) > 1:
        names = [f"{stem}-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        host = {key: tensors[key].detach().to("cpu", copy=True).contiguous() for key in shard}
        save_file(host, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        write_json(
            _index(folder, stem),
            {
                "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
                "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
            },
        )


def read_shards(folder: Path, *, stem: str = MODEL) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, one at a time, on the CPU. Checks no digest.

    Raises:
        OSError, KeyError, TypeError, ValueError, SafetensorError: a file is missing or not of this format.
    """
    for shard in _shards_of(folder, stem):
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping, but with a method of that name
                yield name, file.get_tensor(name)


def _split(tensors: Mapping[str, Tensor]) -> list[list[str]]:
    """Names in order, in groups of at most 2 GiB; a larger tensor is a group of its own."""
    shards: list[list[str]] = [[]]
    size_bytes = 0
    for name, tensor in tensors.items():
        if shards[-1] and size_bytes + tensor.nbytes > _SHARD_BYTES:
            shards.append([])
            size_bytes = 0
        shards[-1].append(name)
        size_bytes += tensor.nbytes
    return shards


def _shards_of(folder: Path, stem: str) -> Sequence[Path]:
    index = _index(folder, stem)
    if not index.exists():
        return [folder / f"{stem}.safetensors"]
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def _index(folder: Path, stem: str) -> Path:
    return folder / f"{stem}.safetensors.index.json"
