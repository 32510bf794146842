"""What one training of a reward model is given: its settings, and the order that its process carries out."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import TypeAdapter

PAIRS_NAME = "pairs.jsonl"
ORDER_NAME = "order.json"
VERSION_NAME = "version"
"""Where the process leaves what it made, inside the work folder."""


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a reward model is trained; equal settings, pairs and backbone make equal files."""

    epochs: int
    learning_rate: float
    rank: int
    """Of the LoRA adapter; its alpha is twice that."""
    batch_size: int
    """Pairs of an optimizer step."""
    max_tokens: int
    """Pairs with a reply that is longer, prompt included, are left out and counted."""
    seed: int
    num_threads: int
    significance: float
    """The greatest p-value at which a candidate is accepted."""


@dataclass(frozen=True, slots=True)
class Minimum:
    """Pairs below which a reward model is not trained."""

    training: int
    held_out: int


@dataclass(frozen=True, slots=True)
class TrainingOrder:
    """One training, as its process finds it in the work folder beside the pairs."""

    language: str
    version: int
    """Number of the version that it makes."""
    backbone: str
    """Id or folder name as configured; goes into the manifest."""
    model: str
    """Folder or Hugging Face id that the backbone is loaded from."""
    baseline: Path | None
    """Folder of the active version, which the new one must beat; None when there is none."""
    created_at: datetime
    minimum: Minimum
    settings: TrainingSettings


_ORDER = TypeAdapter(TrainingOrder)


def write_order(folder: Path, order: TrainingOrder) -> None:
    """Put the order into a work folder."""
    (folder / ORDER_NAME).write_bytes(_ORDER.dump_json(order))


def read_order(folder: Path) -> TrainingOrder:
    """The order of a work folder. Raises pydantic.ValidationError, OSError."""
    return _ORDER.validate_json((folder / ORDER_NAME).read_bytes())
