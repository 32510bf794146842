"""Converted models in the user's cache: complete and exactly as they were written, or built again.

    NAME/manifest.json, NAME/*       a whole model; the manifest has the size and sha256 of every file
    .NAME.lock                       held while a model is built
    .NAME.terms                      the terms that the user accepted
    .NAME.<random>/                  a build under way; what a crash leaves here, the next build removes

A folder becomes NAME in one rename after all its bytes are on disk, so that no reader sees half of it. Knows nothing
of models: a builder fills the folder.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from agent.errors import ModelError
from agent.files import sha256_of, sync

Progress = Callable[[str], None]
"""Called with a line for the user, from the calling thread."""

Builder = Callable[[Path, Progress], None]
"""Fills an empty folder; what it leaves when it raises is removed."""

MANIFEST = "manifest.json"

_log = structlog.stdlib.get_logger(__name__)


class FileRecord(BaseModel):
    """One file of a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """What a model folder holds and what it was built from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    built_from: str
    files: dict[str, FileRecord]


def default_folder() -> Path:
    """`coloq/models` in the user's cache (XDG_CACHE_HOME, else `~/.cache`)."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "coloq" / "models"


class ModelCache:
    """Model folders by name. Processes that share the folder never build one model at the same time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folder(self, name: str) -> Path:
        """Where the model is, once it is provided."""
        return self._root / name

    def provide(self, name: str, built_from: str, build: Builder, progress: Progress) -> Path:
        """The verified folder of a model, built first when it is absent, damaged or built from something else.

        Raises:
            ModelError: the cache cannot be written, or the builder failed.
        """
        folder = self.folder(name)
        if self.damage(name, built_from) is None:
            return folder
        try:
            with self._lock(name, progress):
                damage = self.damage(name, built_from)
                if damage is not None:
                    if folder.exists():
                        _log.warning("model_cache_damaged", model=name, reason=damage)
                        progress(f"{name}: the cached copy is damaged ({damage}); converting it again")
                    self._rebuild(name, built_from, build, progress)
        except OSError as error:
            raise ModelError(f"the model cache must be writable and have room: {error}") from error
        return folder

    def damage(self, name: str, built_from: str) -> str | None:
        """Why the folder cannot be used, or None. Reads every file: about a second per gigabyte."""
        folder = self.folder(name)
        try:
            manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        except (OSError, ValidationError):
            return f"{MANIFEST} is missing or unreadable"
        if manifest.built_from != built_from:
            return "it was built from another source or by another version of coloq"
        return next((f"{file} differs from {MANIFEST}" for file in _differing(folder, manifest)), None)

    def accept(self, name: str, terms: str) -> None:
        """Remember that the user accepted these terms for a model.

        Raises:
            ModelError: the cache cannot be written.
        """
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            self._terms(name).write_text(terms, encoding="utf-8")
        except OSError as error:
            raise ModelError(f"the model cache must be writable: {error}") from error

    def accepted(self, name: str, terms: str) -> bool:
        """Whether exactly these terms were accepted for the model."""
        path = self._terms(name)
        return path.is_file() and path.read_text(encoding="utf-8") == terms

    def _terms(self, name: str) -> Path:
        return self._root / f".{name}.terms"

    @contextmanager
    def _lock(self, name: str, progress: Progress) -> Iterator[None]:
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / f".{name}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                progress(f"{name}: another process is converting it; waiting")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _rebuild(self, name: str, built_from: str, build: Builder, progress: Progress) -> None:
        for leftover in self._root.glob(f".{name}.*/"):
            shutil.rmtree(leftover)
        with tempfile.TemporaryDirectory(dir=self._root, prefix=f".{name}.") as workplace:
            fresh = Path(workplace) / "fresh"
            fresh.mkdir()
            build(fresh, progress)
            _seal(fresh, built_from)
            if self.folder(name).exists():
                self.folder(name).rename(Path(workplace) / "damaged")
            fresh.rename(self.folder(name))
            sync(self._root)


def _differing(folder: Path, manifest: Manifest) -> Iterator[str]:
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != record.size_bytes or sha256_of(path) != record.sha256:
            yield name


def _seal(folder: Path, built_from: str) -> None:
    """Write the manifest of a finished folder and bring everything to disk."""
    files = {
        path.name: FileRecord(size_bytes=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(folder.iterdir())
    }
    manifest = Manifest(built_from=built_from, files=files)
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    for path in folder.iterdir():
        path.chmod(0o644)
        sync(path)
    sync(folder)
