"""What is said when a plan does not fit: every advice is planned again here, and fits."""

from typing import Any

import pytest

from agent.config import AgentConfig
from agent.errors import InvalidConfig
from service.config import NodeConfig
from service.gpu import Gpu, find_gpu
from service.memory_plan import plan_memory
from service.model_shape import find_shape
from service.plan_advice import Advisor, changed, require_fit, value_at

GIB = 2**30
SHAPES = {name: find_shape(name) for name in ("qwen2.5-1.5b", "qwen2.5-7b", "llama-13b", "qwen2.5-32b", "qwen2.5-72b")}


def node(**values: Any) -> NodeConfig:
    """Defaults, with other values by key: dots written as two underscores."""
    return changed(NodeConfig(), {key.replace("__", "."): value for key, value in values.items()})


def refusal(config: NodeConfig, shape: str, gpu: Gpu) -> InvalidConfig:
    with pytest.raises(InvalidConfig) as raised:
        require_fit(config, SHAPES[shape], gpu, plan_memory(config, SHAPES[shape], gpu))
    return raised.value


def alternatives(config: NodeConfig, shape: str, gpu: Gpu) -> list[dict[str, object]]:
    """Each alternative by key, after planning with it again."""
    advisor = Advisor(SHAPES[shape], gpu)
    found = [{change.key: change.new for change in changes} for changes in advisor.alternatives(config)]
    for values in found:
        assert advisor.plan(changed(config, values)).fits
        for key in values:
            fewer = {name: value for name, value in values.items() if name != key}
            assert not advisor.plan(changed(config, fewer)).fits
    return found


def test_a_plan_that_fits_passes() -> None:
    """So does every plan of a CPU, which is not bounded."""
    gpu = find_gpu("h200-141gb")
    require_fit(node(), SHAPES["qwen2.5-7b"], gpu, plan_memory(node(), SHAPES["qwen2.5-7b"], gpu))
    config = node(engine__kv_cache_gib=10_000.0)
    require_fit(config, SHAPES["qwen2.5-7b"], None, plan_memory(config, SHAPES["qwen2.5-7b"], None))


def test_too_large_a_cache_is_cut_to_what_is_left() -> None:
    """The key, how much is too much, and the largest tenth of a GiB that fits; one tenth more does not."""
    gpu, config = find_gpu("h100-80gb"), node(engine__kv_cache_gib=70.0)
    error = refusal(config, "qwen2.5-1.5b", gpu)
    plan = plan_memory(config, SHAPES["qwen2.5-1.5b"], gpu)
    assert error.field == "engine.kv_cache_gib"
    assert f"the plan needs {plan.used_bytes / GIB:.1f} GiB, {plan.excess_bytes / GIB:.1f} GiB more" in error.message
    size = alternatives(config, "qwen2.5-1.5b", gpu)[0]["engine.kv_cache_gib"]
    assert isinstance(size, float)
    assert f"engine.kv_cache_gib = {size} (now 70.0)" in error.message
    assert not Advisor(SHAPES["qwen2.5-1.5b"], gpu).plan(node(engine__kv_cache_gib=size + 0.1)).fits


def test_too_small_a_cache_is_raised_to_one_sequence() -> None:
    """0.01 GiB are 374 tokens of the 1.5B shape; a sequence has 1024."""
    gpu, config = find_gpu("h100-80gb"), node(engine__kv_cache_gib=0.01)
    error = refusal(config, "qwen2.5-1.5b", gpu)
    assert error.field == "engine.kv_cache_gib"
    assert "the KV cache must hold one sequence of 1,024 tokens" in error.message
    assert {"engine.kv_cache_gib": 0.1} in alternatives(config, "qwen2.5-1.5b", gpu)


def test_the_mildest_value_that_is_enough_is_advised() -> None:
    """A 7B model on 40 GiB, 16,384 positions a micro-batch: halved until it fits, and no further."""
    gpu = find_gpu("a100-40gb")
    config = node(tuning__microbatch_tokens=16_384)
    found = alternatives(config, "qwen2.5-7b", gpu)
    (size,) = [values["tuning.microbatch_tokens"] for values in found if "tuning.microbatch_tokens" in values]
    assert isinstance(size, int)
    assert size in (8192, 4096, 2048, 1024)
    assert not Advisor(SHAPES["qwen2.5-7b"], gpu).plan(node(tuning__microbatch_tokens=2 * size)).fits


def test_full_tuning_of_7b_is_advised_the_cpus_optimizer() -> None:
    """On 141 GB masters and moments of 7.6 billion parameters, 85 GiB, are what does not fit."""
    gpu, config = find_gpu("h200-141gb"), node(tuning__method="full")
    assert refusal(config, "qwen2.5-7b", gpu).field == "tuning.optimizer"
    assert alternatives(config, "qwen2.5-7b", gpu)[0] == {"tuning.optimizer": "cpu"}


def test_a_set_that_keeps_the_method_stands_beside_another_method() -> None:
    """7B, full, where the CPU's optimizer alone lacks one GiB: smaller micro-batches with it, or adapters."""
    config, shape = node(tuning__method="full", tuning__microbatch_tokens=4096), SHAPES["qwen2.5-7b"]
    with_cpu = plan_memory(changed(config, {"tuning.optimizer": "cpu"}), shape, Gpu("GPU", 1)).used_bytes
    gpu = Gpu("GPU", int((with_cpu - GIB) / (0.9 * 0.98)))  # 0.9 may be used, of which 0.02 is slack
    assert alternatives(config, "qwen2.5-7b", gpu) == [
        {"tuning.microbatch_tokens": 2048, "tuning.optimizer": "cpu"},
        {"tuning.method": "adapter"},
    ]
    advice = 'tuning.microbatch_tokens = 2048 (now 4096) and tuning.optimizer = "cpu" (now "device")'
    assert advice in refusal(config, "qwen2.5-7b", gpu).message


def test_the_cpus_optimizer_is_not_kept_for_an_adapter() -> None:
    """7B, full, on 24 GiB less than it needs with masters on the host: what is advised can be loaded as a file."""
    config, shape = node(tuning__method="full", tuning__optimizer="cpu"), SHAPES["qwen2.5-7b"]
    needed = plan_memory(config, shape, Gpu("GPU", 1)).used_bytes
    advisor = Advisor(shape, Gpu("GPU", int((needed - 24 * GIB) / (0.9 * 0.98))))
    found = [{change.key: change.new for change in changes} for changes in advisor.alternatives(config)]
    assert {"tuning.method": "adapter", "tuning.optimizer": "device"} in found
    for values in found:
        NodeConfig.model_validate(changed(config, values).model_dump())


def test_a_copy_for_rollback_is_moved_to_the_host_when_that_is_enough() -> None:
    """1.5B, full, 2.9 GiB of last good weights on a GPU that lacks one."""
    config = node(tuning__method="full", tuning__full__last_good="gpu")
    shape = SHAPES["qwen2.5-1.5b"]
    total = plan_memory(config, shape, Gpu("GPU", 1)).used_bytes
    gpu = Gpu("GPU", int((total - GIB) / (0.9 * 0.98)))
    assert {"tuning.full.last_good": "host"} in alternatives(config, "qwen2.5-1.5b", gpu)


def test_more_of_the_gpu_is_advised_when_a_little_is_missing() -> None:
    """Never more than 0.95: the driver and other programs need some."""
    config, shape = node(engine__kv_cache_gib=50.0), SHAPES["qwen2.5-1.5b"]
    gpu = Gpu("GPU", int(plan_memory(config, shape, Gpu("GPU", 80 * GIB)).used_bytes / 0.93))
    (fraction,) = [
        values["cuda.memory_fraction"]
        for values in alternatives(config, "qwen2.5-1.5b", gpu)
        if "cuda.memory_fraction" in values
    ]
    assert isinstance(fraction, float)
    assert 0.9 < fraction <= 0.95
    assert not Advisor(shape, gpu).plan(changed(config, {"cuda.memory_fraction": fraction - 0.01})).fits
    large = Gpu("GPU", int(plan_memory(config, shape, Gpu("GPU", 80 * GIB)).used_bytes / 0.97))
    assert not any("cuda.memory_fraction" in values for values in alternatives(config, "qwen2.5-1.5b", large))


def test_a_gpu_that_others_hold_is_named_as_such() -> None:
    """The fraction goes down to what is free, where the cache is what gives way."""
    gpu = Gpu("GPU", 80 * GIB, free_bytes=40 * GIB)
    error = refusal(node(), "qwen2.5-1.5b", gpu)
    assert "only 40.0 GiB of the GPU's 80.0 GiB are free: other programs hold the rest" in error.message
    assert alternatives(node(), "qwen2.5-1.5b", gpu) == [{"cuda.memory_fraction": 0.5}]
    assert error.field == "cuda.memory_fraction"


def test_a_model_that_no_setting_makes_fit_is_refused_by_name() -> None:
    """72B in 16 bits are 135 GiB; an H100 has 79."""
    error = refusal(node(), "qwen2.5-72b", find_gpu("h100-80gb"))
    assert error.field == "engine.model"
    assert "No setting makes this model fit: the most sparing one still needs" in error.message
    assert "Choose a smaller model or a larger GPU" in error.message


@pytest.mark.parametrize("method", ["adapter", "full"])
@pytest.mark.parametrize("card", ["h100-80gb", "h200-141gb", "a100-40gb", "l40s-48gb", "rtx4090-24gb"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_every_refusal_of_every_card_is_answered(shape: str, card: str, method: str) -> None:
    """Each alternative fits and has no change too many; where there is none, the most sparing plan is too large."""
    gpu, config = find_gpu(card), node(tuning__method=method, engine__max_num_seqs=128)
    advisor = Advisor(SHAPES[shape], gpu)
    if advisor.plan(config).fits:
        return
    found = alternatives(config, shape, gpu)
    assert bool(found) is advisor.most_sparing(config).fits


def test_the_context_stays_longer_than_the_replies() -> None:
    """An advice must be a valid configuration: max_model_len stays above max_tokens."""
    config = node(agent=AgentConfig(max_tokens=700))
    gpu = find_gpu("rtx4090-24gb")
    keys = {key for values in alternatives(config, "qwen2.5-7b", gpu) for key in values}
    assert "engine.max_model_len" not in keys


def test_values_are_read_and_changed_by_their_keys() -> None:
    """The original stays as it is."""
    config = NodeConfig()
    other = changed(config, {"tuning.full.last_good": "gpu", "engine.max_num_seqs": 3})
    assert value_at(other, "tuning.full.last_good") == "gpu"
    assert value_at(config, "tuning.full.last_good") == "host"
    assert (other.engine.max_num_seqs, config.engine.max_num_seqs) == (3, 16)
