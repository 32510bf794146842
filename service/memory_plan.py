"""The memory plan: what the node will hold, in the order in which it is placed, before any of it is allocated.

    weights ─ KV cache ─ engine ─ adapter slots ─ reward models ─ contexts, slack ─ training ─ … ─ optimizer

``cuda.memory_fraction`` of the device bounds the whole. On a GPU whose ``engine.kv_cache_gib`` is unset the KV cache
takes what everything else leaves. Host memory is listed and not bounded; on a CPU nothing is bounded. Refusals and
advice are service.plan_advice's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from service.config import NodeConfig
from service.engine_footprint import CPU_KV_CACHE_GIB, KV_BLOCK_TOKENS, EngineFootprint
from service.gpu import Gpu
from service.reward_footprint import NO_JUDGES, RewardFootprint
from trainer.footprint import NUM_PARTITIONS, MemoryLine, TrainingFootprint, num_adapter_slots
from trainer.model_shape import ModelShape

PRIMARY_CONTEXT_BYTES = 640 * 2**20
"""The CUDA context with the kernels of torch and vLLM, and the libraries' workspaces. Estimated."""
GREEN_CONTEXT_BYTES = 96 * 2**20
"""A green context with its streams and cuBLAS's workspace for them. Estimated."""
SLACK_FRACTION = 0.02
"""Share of the bound that is left free: what the allocator cannot use between its blocks."""

DEVICE_USED = "device_used"
"""Name of the whole in a comparison; slack is no part of it."""

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What goes where, for one configuration on one device."""

    model: str
    num_parameters: int
    device: str
    """A GPU's name, or `CPU`."""
    device_bytes: int | None
    """All of the GPU; None on a CPU."""
    limit_bytes: int | None
    """Most that the node may take of the GPU; None on a CPU."""
    free_bytes: int | None
    """What other programs leave of the GPU; None where it was not asked."""
    lines: tuple[MemoryLine, ...]
    kv_bytes_per_token: int
    kv_cache_tokens: int
    max_model_len: int

    @property
    def used_bytes(self) -> int:
        """All lines of the device, slack included."""
        return sum(line.size_bytes for line in self.lines if not line.on_host)

    @property
    def host_bytes(self) -> int:
        return sum(line.size_bytes for line in self.lines if line.on_host)

    @property
    def excess_bytes(self) -> int:
        """How much too large the plan is; 0 when it fits."""
        bounds = [bound for bound in (self.limit_bytes, self.free_bytes) if bound is not None]
        return max(0, self.used_bytes - min(bounds)) if bounds else 0

    @property
    def fits(self) -> bool:
        """Within the bounds, with room for at least one sequence of full length."""
        return self.limit_bytes is None or (self.excess_bytes == 0 and self.full_length_sequences >= 1)

    @property
    def full_length_sequences(self) -> float:
        """Sequences of ``engine.max_model_len`` tokens that the KV cache holds at one time; one block stays empty."""
        whole = -(-self.max_model_len // KV_BLOCK_TOKENS) * KV_BLOCK_TOKENS
        return max(0, self.kv_cache_tokens - KV_BLOCK_TOKENS) / whole

    @property
    def kv_cache_bytes(self) -> int:
        return self.size_of("kv_cache")

    @property
    def training_bytes(self) -> int:
        """Of the device."""
        return sum(line.size_bytes for line in self.lines if line.part == "training" and not line.on_host)

    def size_of(self, name: str) -> int:
        """Bytes of a line. Raises KeyError."""
        return {line.name: line.size_bytes for line in self.lines}[name]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the plan beside what was measured."""

    name: str
    predicted_bytes: int
    measured_bytes: int

    @property
    def relative_error(self) -> float | None:
        """(predicted - measured) / measured; None when nothing was measured to divide by."""
        if self.measured_bytes == 0:
            return None
        return (self.predicted_bytes - self.measured_bytes) / self.measured_bytes


def plan_memory(
    config: NodeConfig, shape: ModelShape, gpu: Gpu | None, *, judges: RewardFootprint = NO_JUDGES
) -> MemoryPlan:
    """Lay out a node's memory. The plan may not fit: see MemoryPlan.fits.

    Args:
        gpu: None for a node on the CPU.
        judges: reward models that run beside the policy.
    """
    engine = EngineFootprint(
        shape,
        config.engine,
        num_adapters=num_adapter_slots(config.tuning) if config.tuning.method == "adapter" else 0,
        adapter_rank=config.tuning.adapter.rank,
        target_modules=config.tuning.adapter.target_modules,
        on_gpu=gpu is not None,
    )
    limit = int(config.cuda.memory_fraction * gpu.total_bytes) if gpu is not None else None
    around = tuple(_around_the_cache(config, engine, limit, judges))
    weights = engine.weights()
    taken = weights.size_bytes + sum(line.size_bytes for line in around if not line.on_host)
    cache = _kv_cache(config, engine, None if limit is None else limit - taken)
    return MemoryPlan(
        model=config.engine.model,
        num_parameters=shape.num_parameters,
        device=gpu.name if gpu is not None else "CPU",
        device_bytes=gpu.total_bytes if gpu is not None else None,
        limit_bytes=limit,
        free_bytes=gpu.free_bytes if gpu is not None else None,
        lines=(weights, cache, *around),
        kv_bytes_per_token=engine.kv_bytes_per_token,
        kv_cache_tokens=engine.kv_cache_tokens(cache.size_bytes),
        max_model_len=config.engine.max_model_len,
    )


def compare(plan: MemoryPlan, measured: Mapping[str, int]) -> tuple[Comparison, ...]:
    """The plan beside the device's measured bytes, by the names of its lines, in their order.

    ``device_used`` is the whole, without slack. What the plan has no line for is left out.
    """
    predicted = {line.name: 0 if line.on_host else line.size_bytes for line in plan.lines}
    predicted[DEVICE_USED] = plan.used_bytes - predicted.get("slack", 0)
    return tuple(Comparison(name, size, measured[name]) for name, size in predicted.items() if name in measured)


def _around_the_cache(
    config: NodeConfig, engine: EngineFootprint, limit: int | None, judges: RewardFootprint
) -> Iterable[MemoryLine]:
    """Every line behind the KV cache, in order."""
    training = TrainingFootprint(
        engine.shape,
        config.tuning,
        longest_tokens=config.engine.max_model_len,
        item_bytes=engine.item_bytes,
        on_gpu=limit is not None,
    )
    yield from engine.lines()
    scoring = judges.lines(config, served_item_bytes=engine.item_bytes, on_gpu=limit is not None)
    yield from scoring if limit is not None else _all_on_device(scoring)
    if limit is not None:
        yield from _overhead(limit)
    yield from training.lines() if limit is not None else _all_on_device(training.lines())


def _overhead(limit: int) -> Iterator[MemoryLine]:
    yield MemoryLine(
        "cuda_contexts",
        PRIMARY_CONTEXT_BYTES + NUM_PARTITIONS * GREEN_CONTEXT_BYTES,
        f"{PRIMARY_CONTEXT_BYTES:,} B + {NUM_PARTITIONS} partitions × {GREEN_CONTEXT_BYTES:,} B",
        part="device",
    )
    slack = int(SLACK_FRACTION * limit)
    yield MemoryLine("slack", slack, f"{SLACK_FRACTION:.0%} of {limit:,} B", part="device")


def _all_on_device(lines: Iterable[MemoryLine]) -> Iterator[MemoryLine]:
    """On a CPU the host's memory is the device's."""
    for line in lines:
        yield replace(line, on_host=False)


def _kv_cache(config: NodeConfig, engine: EngineFootprint, left: int | None) -> MemoryLine:
    """The configured size; else the default of a CPU, or what is left of a GPU.

    What is left is at least a sequence of full length for every reserved live slot and one more, even if that is more
    than there is: then the plan does not fit.
    """
    per_token = engine.kv_bytes_per_token
    configured = config.engine.kv_cache_gib
    if configured is not None or left is None:
        size = int((configured or CPU_KV_CACHE_GIB) * _GIB)
        source = "engine.kv_cache_gib" if configured is not None else "the default of a CPU"
    else:
        sequences = config.engine.live_reserve + 1
        least = engine.kv_cache_bytes(sequences)
        size = max(least, left // engine.kv_block_bytes * engine.kv_block_bytes)
        source = "what is left" if size > least else f"the least: {sequences} sequences of full length"
    basis = f"{engine.kv_cache_tokens(size):,} tokens × {per_token:,} B; {source}"
    return MemoryLine("kv_cache", size, basis, part="engine")
