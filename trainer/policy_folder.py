"""A policy on disk: PEFT's adapter layout plus a manifest with the digest of every file.

    <root>/v7/adapter_model.safetensors
              adapter_config.json
              manifest.json            written last inside the folder

Written to a temporary folder, fsynced, renamed: a folder that exists is whole. Immutable once written. No pickle.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from agent.errors import PublicationFailed
from trainer.ports import PolicyMetadata

WEIGHTS, ADAPTER_CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"


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
    """Write one policy durably; returns the manifest's sha256.

    Raises:
        PublicationFailed: the folder exists already, or the disk refused.
    """
    if folder.exists():
        raise PublicationFailed(f"a written policy is immutable, and {folder.name} exists")
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial / WEIGHTS)
        (partial / ADAPTER_CONFIG).write_text(json.dumps(dict(adapter_config), indent=2, sort_keys=True))
        manifest = {
            **asdict(metadata),
            "method": "adapter",
            "created_at": datetime.now(UTC).isoformat(),
            "files": {
                name: {"sha256": _sha256(partial / name), "size_bytes": (partial / name).stat().st_size}
                for name in (WEIGHTS, ADAPTER_CONFIG)
            },
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True))
        for path in (*partial.iterdir(), partial):
            _fsync(path)
        partial.rename(folder)
        _fsync(folder.parent)
    except OSError as error:
        raise PublicationFailed(f"policy {folder.name} could not be written: {error}") from error
    return _sha256(folder / MANIFEST)


def read_policy(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Tensors (on the CPU), adapter configuration and manifest digest of a written policy.

    Raises:
        PublicationFailed: a file is missing or differs from the manifest.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for name in (WEIGHTS, ADAPTER_CONFIG):
            expected, found = manifest["files"][name]["sha256"], _sha256(folder / name)
            if found != expected:
                raise PublicationFailed(f"{folder.name}/{name} must have sha256 {expected[:12]}…, got {found[:12]}…")
        config = json.loads((folder / ADAPTER_CONFIG).read_text())
        return load_file(folder / WEIGHTS), config, _sha256(folder / MANIFEST)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PublicationFailed(f"policy {folder.name} cannot be read: {error}") from error


def read_metadata(folder: Path) -> PolicyMetadata:
    """What the manifest says a policy is.

    Raises:
        PublicationFailed: there is no readable manifest.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return PolicyMetadata(**{key: manifest[key] for key in PolicyMetadata.__dataclass_fields__})
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise PublicationFailed(f"policy {folder.name} has no readable manifest: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
