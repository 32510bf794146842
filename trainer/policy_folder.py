"""A policy on disk: an adapter in PEFT's layout, or full weights in transformers', with the digest of every file.

    <root>/v7/adapter_model.safetensors     method adapter
              adapter_config.json
              manifest.json                 written last inside the folder

    <root>/v8/model.safetensors             method full; above 2 GiB model-00001-of-00002.safetensors, … and
              config.json                   model.safetensors.index.json
              manifest.json

Written to a temporary folder, fsynced, renamed: a folder that exists is whole. Immutable once written. What a write
leaves that fails, or that its process does not outlive, is removed: on a full disk it would keep everybody else from
writing. No pickle. Full weights are written and read shard by shard, so that one shard is in memory at a time.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from agent.errors import PublicationFailed
from agent.files import check_digests, digests_of, move_durably, sha256_of, write_json
from trainer.ports import Method, PolicyMetadata
from trainer.shards import read_shards, write_shards

WEIGHTS, ADAPTER_CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"
MODEL_CONFIG = "config.json"


def policy_folder(root: Path, version: int) -> Path:
    """Where a version lives."""
    return root / f"v{version}"


def newest_version(root: Path) -> int:
    """The highest version that was ever written below ``root``; 0 when there is none."""
    names = [path.name for path in root.glob("v*")]
    return max((int(name[1:]) for name in names if name[1:].isdigit()), default=0)


def remove_unfinished(root: Path) -> None:
    """Delete what writes left below ``root`` that their process did not outlive. Nobody else may be writing."""
    for partial in root.glob(".v*.partial-*"):
        shutil.rmtree(partial, ignore_errors=True)


def write_policy(
    folder: Path, tensors: Mapping[str, Tensor], adapter_config: Mapping[str, Any], metadata: PolicyMetadata
) -> str:
    """Write one adapter durably; returns the manifest's sha256.

    Raises:
        PublicationFailed: the folder exists already, or the disk refused.
    """

    def fill(partial: Path) -> None:
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial / WEIGHTS)
        write_json(partial / ADAPTER_CONFIG, dict(adapter_config))

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
        write_shards(partial, tensors)
        write_json(partial / MODEL_CONFIG, dict(config))

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
            "files": digests_of(partial),
        }
        write_json(partial / MANIFEST, manifest)
        move_durably(partial, folder)
    except (OSError, SafetensorError) as error:  # the latter is what a full disk makes of a file of weights
        raise PublicationFailed(f"policy {folder.name} could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sha256_of(folder / MANIFEST)


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
        check_digests(folder, files)
        return sha256_of(folder / MANIFEST)
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise PublicationFailed(f"policy {folder.name} cannot be read: {error}") from error


def read_model(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Full weights by Hugging Face's names, one at a time, on the CPU: of a written policy or of any model's folder.

    Checks no digest; ``verify_policy`` does.

    Raises:
        PublicationFailed: a file is missing or is no safetensors file.
    """
    try:
        yield from read_shards(folder)
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
