"""Files that are whole or absent after a power cut: synced, renamed, checked by digest."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object; not synced."""
    path.write_text(json.dumps(content, indent=2, sort_keys=True))


def sha256_of(path: Path) -> str:
    """A file's digest, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests_of(folder: Path) -> dict[str, dict[str, str | int]]:
    """Digest and size of every file of a folder, by name: the `files` of a manifest."""
    return {
        path.name: {"sha256": sha256_of(path), "size_bytes": path.stat().st_size} for path in sorted(folder.iterdir())
    }


def check_digests(folder: Path, files: Mapping[str, Mapping[str, str]]) -> None:
    """Check every file that a manifest names.

    Raises:
        ValueError: one has another digest.
        OSError, KeyError, TypeError: one is missing, or this is no such table.
    """
    for name, file in files.items():
        expected, found = file["sha256"], sha256_of(folder / name)
        if found != expected:
            raise ValueError(f"{folder.name}/{name} must have sha256 {expected[:12]}…, got {found[:12]}…")


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_durably(partial: Path, folder: Path) -> None:
    """Sync a folder and its files, then rename it in one step that survives a power cut."""
    for path in (*partial.iterdir(), partial):
        sync(path)
    partial.rename(folder)
    sync(folder.parent)


def replace_durably(path: Path, content: str | bytes) -> None:
    """Write a small file anew: a reader finds the old content or the new one, also after a power cut."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_bytes(content.encode() if isinstance(content, str) else content)
    sync(partial)
    partial.replace(path)
    sync(path.parent)
