"""The memory plan: what is in it, in which order, and what is left for the KV cache."""

import pytest

from rewards.config import RewardModelConfig, RewardsConfig
from service.config import CudaConfig, EngineConfig, NodeConfig
from service.engine_footprint import GRAPH_BYTES_PER_LAYER, EngineFootprint
from service.gpu import Gpu, find_gpu
from service.memory_plan import MemoryPlan, compare, plan_memory
from service.model_shape import find_shape
from service.reward_footprint import NO_JUDGES, RewardFootprint, ScorerShape
from trainer.config import TuningConfig

GIB = 2**30
SHAPE = find_shape("qwen2.5-1.5b")
H100 = find_gpu("h100-80gb")


def node(*, fraction: float = 0.9, tuning: TuningConfig | None = None, **engine: object) -> NodeConfig:
    return NodeConfig(
        engine=EngineConfig.model_validate({"model": "qwen2.5-1.5b", **engine}),
        cuda=CudaConfig(memory_fraction=fraction),
        tuning=tuning or TuningConfig(),
    )


def plan(config: NodeConfig, gpu: Gpu | None = H100, *, judges: RewardFootprint = NO_JUDGES) -> MemoryPlan:
    return plan_memory(config, SHAPE, gpu, judges=judges)


def test_weights_come_first_the_cache_second_and_the_optimizer_last() -> None:
    """What is placed first is kept when memory runs short; the optimizer is what gives way."""
    names = [line.name for line in plan(node()).lines]
    assert names[:2] == ["weights", "kv_cache"]
    assert names[-1] == "masters_and_moments"
    assert names == [
        "weights",
        "kv_cache",
        "adapter_slots",
        "engine_activations",
        "sampler",
        "engine_graphs",
        "reward_models",
        "cuda_contexts",
        "slack",
        "kept_versions",
        "trained_weights",
        "activations",
        "logits",
        "training_graphs",
        "gradients",
        "masters_and_moments",
    ]


def test_the_cache_takes_what_everything_else_leaves() -> None:
    """To the last whole block of 16 x 28,672 B, and the whole stays within the fraction of the GPU."""
    laid_out = plan(node())
    assert laid_out.limit_bytes == int(0.9 * H100.total_bytes)
    assert 0 <= laid_out.limit_bytes - laid_out.used_bytes < 16 * 28_672
    others = sum(line.size_bytes for line in laid_out.lines if line.name != "kv_cache")
    assert laid_out.kv_cache_bytes == (laid_out.limit_bytes - others) // (16 * 28_672) * (16 * 28_672)
    assert laid_out.fits


def test_a_configured_cache_is_taken_as_it_is() -> None:
    """8 GiB hold 8 x 2**30 / 28,672 tokens, in whole blocks of 16: 18,724 blocks, of which one stays empty."""
    laid_out = plan(node(kv_cache_gib=8.0, max_model_len=1024))
    assert laid_out.kv_cache_bytes == 8 * GIB
    assert laid_out.kv_cache_tokens == 18_724 * 16
    assert laid_out.full_length_sequences == pytest.approx(18_723 / 64)
    assert laid_out.excess_bytes == 0


def test_the_least_cache_holds_the_reserved_sequences_and_one_more() -> None:
    """On a GPU that is too small the cache is not cut below that: the plan does not fit, by what is missing."""
    config = node(live_reserve=2, max_model_len=1024)
    small = plan(config, Gpu("small", 10 * GIB))
    assert small.kv_cache_bytes == (3 * 64 + 1) * 16 * 28_672
    assert small.limit_bytes == 9 * GIB
    assert small.excess_bytes == small.used_bytes - 9 * GIB > 0
    assert not small.fits


def test_a_cache_below_one_sequence_does_not_fit() -> None:
    """vLLM would refuse it later, and less clearly: 0.01 GiB are 374 tokens."""
    laid_out = plan(node(kv_cache_gib=0.01, max_model_len=1024))
    assert laid_out.excess_bytes == 0
    assert laid_out.full_length_sequences < 1
    assert not laid_out.fits


def test_what_other_programs_hold_is_not_planned_over() -> None:
    """The same plan fits a GPU of which enough is free, and not one of which too little is."""
    needed = plan(node(kv_cache_gib=8.0)).used_bytes
    assert plan(node(kv_cache_gib=8.0), Gpu("shared", H100.total_bytes, needed)).fits
    held = plan(node(kv_cache_gib=8.0), Gpu("shared", H100.total_bytes, needed - 1))
    assert (held.fits, held.excess_bytes) == (False, 1)


def test_the_fraction_bounds_the_whole() -> None:
    """Half of the GPU is half of the plan, slack included, and the cache is smaller by the difference."""
    whole, half = plan(node(fraction=0.9)), plan(node(fraction=0.45))
    assert half.used_bytes <= 0.45 * H100.total_bytes
    assert half.kv_cache_bytes < whole.kv_cache_bytes - 0.44 * H100.total_bytes


def test_reward_models_are_taken_from_the_cache() -> None:
    """A judge of 2 GiB leaves 2 GiB less, up to a block; its batch of one position is as good as nothing."""
    rewards = RewardsConfig(models={"taste": RewardModelConfig(model="org/judge", max_tokens=16, batch_tokens=16)})
    judges = RewardFootprint({"org/judge": ScorerShape(2**30, 1, 1, 2)})
    judged = node().model_copy(update={"rewards": rewards})
    lost = plan(node()).kv_cache_bytes - plan(judged, judges=judges).kv_cache_bytes
    assert 2 * GIB - 16 * 28_672 <= lost <= 2 * GIB + 16 * 28_672


def test_full_tuning_with_the_cpus_optimizer_moves_the_optimizer_to_the_host() -> None:
    """Host memory is listed and takes nothing from the GPU: 12 B a parameter, buffers, and 2 B for the last good."""
    on_device = plan(node(tuning=TuningConfig(method="full")))
    on_host = plan(node(tuning=TuningConfig(method="full", optimizer="cpu")))
    freed = on_host.kv_cache_bytes - on_device.kv_cache_bytes
    assert freed == pytest.approx(12 * SHAPE.num_parameters, abs=16 * 28_672)
    assert on_host.host_bytes == 14 * SHAPE.num_parameters + 4 * 2**21 * 6
    assert on_device.host_bytes == 2 * SHAPE.num_parameters
    assert on_host.limit_bytes is not None
    assert on_host.used_bytes <= on_host.limit_bytes


def test_a_cpu_is_listed_and_not_bounded() -> None:
    """Half a GiB of cache unless configured, nothing of CUDA, nothing apart on the host."""
    laid_out = plan(node(), None)
    assert (laid_out.device, laid_out.limit_bytes, laid_out.excess_bytes) == ("CPU", None, 0)
    assert laid_out.kv_cache_bytes == GIB // 2
    assert plan(node(kv_cache_gib=0.25), None).kv_cache_bytes == GIB // 4
    assert laid_out.fits
    names = {line.name for line in laid_out.lines}
    assert {"weights", "kv_cache", "activations", "masters_and_moments"} <= names
    assert not names & {"cuda_contexts", "slack", "engine_graphs", "training_graphs"}
    full = plan(node(tuning=TuningConfig(method="full", optimizer="cpu")), None)
    assert full.host_bytes == 0


def test_the_plan_asks_for_what_the_engine_is_launched_with() -> None:
    """keep_adapters, the active policy, a candidate and its successor have a slot."""
    config = node(tuning=TuningConfig(keep_adapters=2))
    modules = config.tuning.adapter.target_modules
    slots = EngineFootprint(SHAPE, config.engine, num_adapters=5, adapter_rank=16, target_modules=modules, on_gpu=True)
    assert plan(config).size_of("adapter_slots") == next(slots.lines()).size_bytes


def test_predictions_are_compared_line_by_line() -> None:
    """Only what was measured is compared; the whole is without slack, since nothing measures that."""
    laid_out = plan(node(kv_cache_gib=8.0))
    measured = {"kv_cache": 8 * GIB, "weights": 3_000_000_000, "device_used": 20 * GIB, "reward_models": 0}
    rows = compare(laid_out, {**measured, "reserved": 21 * GIB})
    by_name = {row.name: row for row in rows}
    assert [row.name for row in rows] == ["weights", "kv_cache", "reward_models", "device_used"]
    assert by_name["kv_cache"].relative_error == 0
    # (3,087,428,608 - 3,000,000,000) / 3,000,000,000
    assert by_name["weights"].relative_error == pytest.approx(0.029142869)
    assert by_name["device_used"].predicted_bytes == laid_out.used_bytes - laid_out.size_of("slack")
    assert by_name["reward_models"].relative_error is None


def test_what_is_on_the_host_is_not_expected_on_the_gpu() -> None:
    """The CPU's optimizer keeps no master there: zero is predicted, and zero is measured."""
    laid_out = plan(node(tuning=TuningConfig(method="full", optimizer="cpu")))
    (row,) = compare(laid_out, {"masters_and_moments": 0})
    assert (row.predicted_bytes, row.relative_error) == (0, None)


def test_full_tuning_needs_no_adapter_slots() -> None:
    """The engine serves the weights themselves; it also captures half as many graphs, of 28 layers in 35 sizes."""
    adapter, full = plan(node()), plan(node(tuning=TuningConfig(method="full")))
    assert "adapter_slots" not in {line.name for line in full.lines}
    assert adapter.size_of("engine_graphs") - full.size_of("engine_graphs") == 35 * 28 * GRAPH_BYTES_PER_LAYER
