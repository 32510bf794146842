"""A policy on disk: an adapter in PEFT's layout, or full weights in transformers', with the digest of every file.

    <root>/v7/adapter_model.safetensors     method adapter
              adapter_config.json
              manifest.json                 written last inside the folder

    <root>/v8/model.safetensors             method full; above 2 GiB model-00001-of-00002.safetensors, … and
              config.json                   model.safetensors.index.json
              manifest.json

Written to a temporary folder, fsynced, renamed: a folder that exists is whole. Immutable once written. No pickle. Full
weights are written and read shard by shard, so that one shard is in memory at a time.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from agent.errors import PublicationFailed
from trainer.ports import Method, PolicyMetadata

WEIGHTS, ADAPTER_CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"
MODEL, MODEL_INDEX, MODEL_CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"
_SHARD_BYTES = 2 * 2**30


def policy_folder(root: Path, version: int) -> Path:
    """Where a version lives."""
    return root / f"v{version}"


def newest_version(root: Path) -> int:
    """The highest version that was ever written below ``root``; 0 when there is none."""
    names = [path.name for path in root.glob("v*")]
    return max((int(name[1:]) for name in names if name[1:].isdigit()), default=0)


def write_policy(
    folder: Path, tensors: Mapping[str, Tensor], adapter_config: Mapping[str, Any], metadata: PolicyMetadata
) -> str:
    """Write one adapter durably; returns the manifest's sha256.

    Raises:
        PublicationFailed: the folder exists already, or the disk refused.
    """

    def fill(partial: Path) -> None:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial / WEIGHTS)
        _write_json(partial / ADAPTER_CONFIG, dict(adapter_config))

    return _write_durably(folder, fill, replace(metadata, method="adapter"))


def write_model(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], metadata: PolicyMetadata
) -> str:
    """Write full weights durably, in a layout that transformers loads; returns the manifest's sha256.

    Args:
        tensors: by Hugging Face's names, on any device; copied to host memory one shard at a time.
        config: the model's ``config.json``.

    Raises:
        PublicationFailed: the folder exists already, or the disk refused.
    """

    def fill(partial: Path) -> None:
        _write_shards(partial, tensors)
        _write_json(partial / MODEL_CONFIG, dict(config))

    return _write_durably(folder, fill, replace(metadata, method="full"))


def _write_durably(folder: Path, fill: Callable[[Path], None], metadata: PolicyMetadata) -> str:
    if folder.exists():
        raise PublicationFailed(f"a written policy is immutable, and {folder.name} exists")
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        fill(partial)
        manifest = {
            **asdict(metadata),
            "created_at": datetime.now(UTC).isoformat(),
            "files": {
                path.name: {"sha256": _sha256(path), "size_bytes": path.stat().st_size}
                for path in sorted(partial.iterdir())
            },
        }
        _write_json(partial / MANIFEST, manifest)
        for path in (*partial.iterdir(), partial):
            _fsync(path)
        partial.rename(folder)
        _fsync(folder.parent)
    except OSError as error:
        raise PublicationFailed(f"policy {folder.name} could not be written: {error}") from error
    return _sha256(folder / MANIFEST)


def read_policy(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors (on the CPU), adapter configuration and manifest digest of a written adapter.

    Raises:
        PublicationFailed: a file is missing or differs from the manifest, or this is no adapter.
    """
    digest = verify_policy(folder)
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        return load_file(folder / WEIGHTS), config, digest
    except (OSError, ValueError, SafetensorError) as error:
        raise PublicationFailed(f"policy {folder.name} cannot be read: {error}") from error


def verify_policy(folder: Path) -> str:
    """Check every file of a written policy against the manifest; returns the manifest's sha256.

    Raises:
        PublicationFailed: a file is missing or differs, or the manifest names none.
    """
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        if not files:
            raise PublicationFailed(f"policy {folder.name} cannot be read: its manifest names no files")
        for name, file in files.items():
            expected, found = file["sha256"], _sha256(folder / name)
            if found != expected:
                raise PublicationFailed(f"{folder.name}/{name} must have sha256 {expected[:12]}…, got {found[:12]}…")
        return _sha256(folder / MANIFEST)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise PublicationFailed(f"policy {folder.name} cannot be read: {error}") from error


def read_model(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Full weights by Hugging Face's names, one at a time, on the CPU: of a written policy or of any model's folder.

    Checks no digest; ``verify_policy`` does.

    Raises:
        PublicationFailed: a file is missing or is no safetensors file.
    """
    try:
        for shard in _shards_of(folder):
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 - no mapping, but with a method of that name
                    yield name, file.get_tensor(name)
    except (OSError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise PublicationFailed(f"the weights in {folder.name} cannot be read: {error}") from error


def read_metadata(folder: Path) -> PolicyMetadata:
    """What the manifest says a policy is.

    Raises:
        PublicationFailed: there is no readable manifest.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        known = [key for key in PolicyMetadata.__dataclass_fields__ if key in manifest]
        metadata = PolicyMetadata(**{key: manifest[key] for key in known})
        if metadata.method not in get_args(Method):
            raise ValueError(f"method must be among {', '.join(get_args(Method))}, got {metadata.method}")
        return metadata
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PublicationFailed(f"policy {folder.name} has no readable manifest: {error}") from error


def _write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    shards = _split(tensors)
    names = [MODEL] if len(shards) == 1 else [_shard_name(i, len(shards)) for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        host = {key: tensors[key].detach().to("cpu", copy=True).contiguous() for key in shard}
        save_file(host, folder / name, metadata={"format": "pt"})
    if len(shards) > 1:
        _write_json(
            folder / MODEL_INDEX,
            {
                "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
                "weight_map": {key: name for name, shard in zip(names, shards, strict=True) for key in shard},
            },
        )


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


def _shard_name(number: int, num_shards: int) -> str:
    """transformers' name of one of several shards."""
    return f"model-{number:05d}-of-{num_shards:05d}.safetensors"


def _shards_of(folder: Path) -> Sequence[Path]:
    index = folder / MODEL_INDEX
    if not index.exists():
        return [folder / MODEL]
    return [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
