"""Memory of reward models, predicted from their configurations. Nothing is loaded.

weights      of every backbone that does not share the served model's, on its device
adapters     of the languages' active versions, in their backbone's precision, for these and for those before them
activations  of the largest batch: backbones score one after another, layer by layer, and keep nothing. A GPU holds them
             once for each lane, since torch never gives a block of one stream to another
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

from agent.errors import InvalidConfig, ModelError
from rewards.config import RewardModelConfig
from rewards.models.manifest import WEIGHTS, active_version, languages, read_manifest, version_folder
from service.config import NodeConfig
from service.engine_footprint import HIDDEN_TENSORS, INNER_TENSORS
from service.named_shapes import NAMED_SHAPES
from trainer.activations import FP32_BYTES
from trainer.footprint import NUM_PARTITIONS, MemoryLine
from trainer.ports import CPU_MICROBATCH_TOKENS, GPU_MICROBATCH_TOKENS

if TYPE_CHECKING:
    from transformers import PretrainedConfig

VERSIONS_HELD = 2
"""Adapters of a language in memory after its first change of version: the active one and the one before it."""
MASK_BYTES = 1
"""Per pair of positions of a padded row: the mask as true or false; attention reads it in the model's precision."""


@dataclass(frozen=True, slots=True)
class ScorerShape:
    """Sizes of a sequence-classification model with one output."""

    num_parameters: int
    hidden_size: int
    intermediate_size: int
    item_bytes: int
    """Of a weight in its checkpoint."""


@dataclass(frozen=True, slots=True)
class RewardFootprint:
    """What the reward models of a configuration will hold."""

    shapes: Mapping[str, ScorerShape] = field(default_factory=dict)
    """By the model's name as configured."""
    adapter_weights: Mapping[str, int] = field(default_factory=dict)
    """Of all active versions together, by the name of their backbone."""

    def lines(self, config: NodeConfig, *, served_item_bytes: int, on_gpu: bool) -> Iterator[MemoryLine]:
        """First the weights beside the engine, which may be none; then activations, and what is in main memory.

        Args:
            served_item_bytes: of the served model's weights in the engine.
        """
        beside, on_host = _copies(config)
        yield self._weights("reward_models", beside, served_item_bytes)
        if config.rewards.models:
            yield self._activations(config, served_item_bytes, on_gpu=on_gpu)
        if on_host:
            yield self._weights("reward_models_in_main_memory", on_host, served_item_bytes, on_host=True)

    def _weights(
        self, name: str, models: Mapping[str, bool], served_item_bytes: int, *, on_host: bool = False
    ) -> MemoryLine:
        """``models`` says of each whether it is a copy of its own."""
        adapters = sum(
            self.adapter_weights.get(model, 0) * (self.shapes[model].item_bytes if is_copy else served_item_bytes)
            for model, is_copy in models.items()
        )
        held = VERSIONS_HELD * adapters
        size = held + sum(self._bytes_of(model, is_copy) for model, is_copy in models.items())
        parts = [
            f"{model}: {self.shapes[model].num_parameters:,} parameters × {self.shapes[model].item_bytes} B"
            if is_copy
            else f"{model}: the served weights, shared; a head of {self.shapes[model].hidden_size:,} × {FP32_BYTES} B"
            for model, is_copy in models.items()
        ]
        if held:
            parts.append(f"adapters: {VERSIONS_HELD} × {adapters:,} B")
        return MemoryLine(name, size, "; ".join(parts) or "none", on_host=on_host, part="judges")

    def _activations(self, config: NodeConfig, served_item_bytes: int, *, on_gpu: bool) -> MemoryLine:
        batch_tokens, num_lanes = (GPU_MICROBATCH_TOKENS, NUM_PARTITIONS + 1) if on_gpu else (CPU_MICROBATCH_TOKENS, 1)
        sizes = [
            self._activation_bytes(
                model,
                settings,
                served_item_bytes if shares_weights(config, part, model) else None,
                positions=max(settings.batch_tokens or batch_tokens, settings.max_tokens),
            )
            for part, settings in config.rewards.models.items()
            for model in settings.names(config.engine.model)
            if settings.device == "engine"
        ]
        positions, each, size = max(sizes, key=lambda row: row[-1], default=(0, 0, 0))
        basis = f"{num_lanes} lanes × {positions:,} positions × {each:,} B"
        return MemoryLine("reward_activations", num_lanes * size, basis, part="judges")

    def _activation_bytes(
        self, model: str, settings: RewardModelConfig, served_item_bytes: int | None, *, positions: int
    ) -> tuple[int, int, int]:
        """Positions of the largest batch, bytes of each, and both multiplied."""
        shape = self.shapes[model]
        item = served_item_bytes or shape.item_bytes
        hidden, inner = HIDDEN_TENSORS * shape.hidden_size, INNER_TENSORS * shape.intermediate_size
        each = (hidden + inner) * item + settings.max_tokens * (MASK_BYTES + item)
        return positions, each, positions * each

    def _bytes_of(self, model: str, is_copy: bool) -> int:
        shape = self.shapes[model]
        return shape.num_parameters * shape.item_bytes if is_copy else shape.hidden_size * FP32_BYTES


NO_JUDGES = RewardFootprint()


def reward_footprint(config: NodeConfig, *, find: Callable[[str], str] = str) -> RewardFootprint:
    """The footprint of a configuration; of every model its ``config.json`` is read, of active versions their sizes.

    Args:
        find: the folder or Hugging Face id behind a model's name.

    Raises:
        InvalidConfig: a model has no configuration here that could be fetched, or none that scores.
    """
    names = {
        model: part for part, settings in config.rewards.models.items() for model in settings.names(config.engine.model)
    }
    if not names:
        return NO_JUDGES
    shapes = {model: _scorer_shape(part, find(model)) for model, part in names.items()}
    return RewardFootprint(shapes, _adapter_weights(config))


def shares_weights(config: NodeConfig, part: str, model: str) -> bool:
    """True when a judge of a part is the served model and needs no second copy of it.

    Not while tuning changes the served weights: a judge that is tuned to please itself is none.
    """
    settings = config.rewards.models[part]
    return model == config.engine.model and settings.device == "engine" and config.tuning.method == "adapter"


def _copies(config: NodeConfig) -> tuple[dict[str, bool], dict[str, bool]]:
    """Models beside the engine and in main memory, with whether each is a copy of its own."""
    beside: dict[str, bool] = {}
    on_host: dict[str, bool] = {}
    for part, settings in config.rewards.models.items():
        for model in settings.names(config.engine.model):
            (on_host if settings.device == "cpu" else beside)[model] = not shares_weights(config, part, model)
    return beside, on_host


def _adapter_weights(config: NodeConfig) -> dict[str, int]:
    """Weights and heads of active versions, by their backbone."""
    root = config.data_dir / "rewards"
    counts: dict[str, int] = {}
    for language in languages(root):
        try:
            version = active_version(root, language)
            if version is not None:
                folder = version_folder(root, language, version)
                backbone = read_manifest(folder).backbone
                counts[backbone] = counts.get(backbone, 0) + _num_weights(folder / WEIGHTS)
        except (OSError, SafetensorError, ModelError):  # the node says so when it loads them
            continue
    return counts


def _num_weights(path: Path) -> int:
    """Of a safetensors file, by its header. Raises OSError, SafetensorError."""
    with safe_open(path, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping


def _scorer_shape(part: str, model: str) -> ScorerShape:
    from accelerate import init_empty_weights
    from transformers import AutoModelForSequenceClassification

    config = _model_config(part, model)
    text = config.get_text_config()
    text.num_labels = 1
    try:
        with init_empty_weights():
            scorer = AutoModelForSequenceClassification.from_config(text)
    except ValueError as error:
        raise InvalidConfig(f"rewards.models.{part}.model", f"must be a model that can score, got {model!r}") from error
    return ScorerShape(
        num_parameters=sum(parameter.numel() for parameter in scorer.parameters()),
        hidden_size=text.hidden_size,
        intermediate_size=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        item_bytes=2 if "16" in str(config.dtype or "") else 4,
    )


def _model_config(part: str, model: str) -> "PretrainedConfig":
    from transformers import AutoConfig

    found: PretrainedConfig
    if model in NAMED_SHAPES and not Path(model).is_dir():
        found = AutoConfig.for_model(**NAMED_SHAPES[model])
        return found
    try:
        found = AutoConfig.from_pretrained(model)
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidConfig(
            f"rewards.models.{part}.model", f"must be a folder or a Hugging Face id, got {model!r}: {reason}"
        ) from error
    return found
