"""What reward models will hold: copies, shared weights, adapters, the largest batch."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from agent.errors import InvalidConfig
from rewards.config import RewardModelConfig, RewardsConfig
from rewards.models.manifest import WEIGHTS, read_manifest, set_active_version
from service.config import EngineConfig, NodeConfig
from service.model_shape import find_shape
from service.reward_footprint import RewardFootprint, ScorerShape, reward_footprint
from tests.tiny_reward import save_tiny_adapter, save_tiny_scorer
from trainer.config import TuningConfig
from trainer.footprint import MemoryLine

SMALL = ScorerShape(num_parameters=1000, hidden_size=8, intermediate_size=32, item_bytes=4)


def _config(*, method: str = "adapter", **models: RewardModelConfig) -> NodeConfig:
    return NodeConfig(
        engine=EngineConfig(model="served"),
        rewards=RewardsConfig(models=models),
        tuning=TuningConfig.model_validate({"method": method}),
    )


def _lines(config: NodeConfig, *, on_gpu: bool = True, **adapter_weights: int) -> dict[str, MemoryLine]:
    adapters = {name.replace("judge", "org/judge"): count for name, count in adapter_weights.items()}
    footprint = RewardFootprint({"served": SMALL, "org/judge": SMALL}, adapters)
    return {line.name: line for line in footprint.lines(config, served_item_bytes=2, on_gpu=on_gpu)}


def test_without_reward_models_there_is_nothing() -> None:
    """The line is there and says so."""
    lines = _lines(_config())
    assert {name: line.size_bytes for name, line in lines.items()} == {"reward_models": 0}
    assert lines["reward_models"].basis == "none"


def test_a_model_of_its_own_is_its_parameters_and_the_adapters_twice() -> None:
    """1,000 x 4 B + 2 x 75 x 4 B."""
    line = _lines(_config(taste=RewardModelConfig(model="org/judge")), judge=75)["reward_models"]
    assert line.size_bytes == 4600
    assert line.basis == "org/judge: 1,000 parameters × 4 B; adapters: 2 × 300 B"


def test_adapters_have_their_backbones_precision_and_place() -> None:
    """On the served weights of 2 B, 2 x 75 x 2 B beside the head's 32 B; those of a backbone in main memory are there,
    2 x 75 x 4 B, and take nothing of the GPU."""
    shared = _lines(_config(taste=RewardModelConfig()), served=75, judge=75)
    assert shared["reward_models"].size_bytes == 332
    on_host = _lines(_config(taste=RewardModelConfig(model="org/judge", device="cpu")), judge=75)
    assert on_host["reward_models"].size_bytes == 0
    assert on_host["reward_models_in_main_memory"].size_bytes == 4600


def test_two_parts_that_name_one_model_hold_it_once() -> None:
    """1,000 x 4 B, whichever part asks."""
    part = RewardModelConfig(model="org/judge")
    assert _lines(_config(taste=part, style=part))["reward_models"].size_bytes == 4000


@pytest.mark.parametrize(("method", "size"), [("adapter", 32), ("full", 4000)])
def test_the_served_model_is_shared_or_copied(method: str, size: int) -> None:
    """A shared one has a head of its own, 8 x 4 B. By method full the weights move, and the judge gets a copy; the plan
    says which."""
    line = _lines(_config(method=method, taste=RewardModelConfig()))["reward_models"]
    assert line.size_bytes == size
    assert ("shared" in line.basis) == (size == 32)


def test_models_in_main_memory_have_a_line_of_their_own() -> None:
    """On a GPU they take nothing of it."""
    lines = _lines(_config(taste=RewardModelConfig(device="cpu")))
    assert (lines["reward_models"].size_bytes, lines["reward_models_in_main_memory"].size_bytes) == (0, 4000)
    assert lines["reward_models_in_main_memory"].on_host


def test_activations_are_those_of_the_largest_batch() -> None:
    """64 positions of (3 x 8 + 3 x 32) x 4 B + 32 x (1 + 4) B = 640 B: 40,960 B on each of a GPU's four lanes; the
    other part's batch is smaller."""
    line = _lines(
        _config(
            taste=RewardModelConfig(model="org/judge", max_tokens=32, batch_tokens=64),
            style=RewardModelConfig(model="org/judge", max_tokens=16, batch_tokens=16),
        )
    )["reward_activations"]
    assert line.size_bytes == 4 * 64 * (120 * 4 + 32 * 5)


@pytest.mark.parametrize(("on_gpu", "positions"), [(True, 4 * 4096), (False, 1024)])
def test_a_batch_that_is_left_open_suits_the_device(on_gpu: bool, positions: int) -> None:
    """Positions of 120 x 4 B + 1,024 x (1 + 4) B = 5,600 B; a GPU has four lanes."""
    lines = _lines(_config(taste=RewardModelConfig(model="org/judge")), on_gpu=on_gpu)
    assert lines["reward_activations"].size_bytes == positions * 5600


def test_sizes_are_read_from_configurations_and_files(tmp_path: Path) -> None:
    """Parameters of the scorer with its head, in fp32, and the weights of the active version."""
    source = save_tiny_scorer(tmp_path / "scorer")
    root = tmp_path / "data" / "rewards"
    folder = save_tiny_adapter(root, "de", source)
    save_tiny_adapter(root, "pl", source)
    set_active_version(root, "de", 1)
    config = _config(taste=RewardModelConfig(model="judge")).model_copy(update={"data_dir": tmp_path / "data"})
    footprint = reward_footprint(config, find=lambda name: str(source))
    size = (source / "model.safetensors").stat().st_size
    shape = footprint.shapes["judge"]
    assert (shape.hidden_size, shape.intermediate_size, shape.item_bytes) == (32, 64, 4)
    assert 0 <= size - 4 * shape.num_parameters < 4096  # the file's header
    weights = load_file(folder / WEIGHTS)
    backbone = read_manifest(folder).backbone
    assert footprint.adapter_weights == {backbone: sum(tensor.numel() for tensor in weights.values())}


def test_a_named_shape_needs_no_files() -> None:
    """A plan can be made for a model that is not here: that of the policy, less its head, with one output."""
    config = _config(taste=RewardModelConfig(model="qwen2.5-1.5b"))
    shape = reward_footprint(config).shapes["qwen2.5-1.5b"]
    policy = find_shape("qwen2.5-1.5b")
    assert shape.num_parameters == policy.num_parameters + policy.hidden_size


def test_a_model_without_a_configuration_is_refused(tmp_path: Path) -> None:
    """The message names the part's key."""
    config = _config(taste=RewardModelConfig(model=str(tmp_path)))
    with pytest.raises(InvalidConfig, match=r"rewards\.models\.taste\.model: must be a folder or"):
        reward_footprint(config)
