"""What to change when a memory plan does not fit. Every advice was planned again and fits.

each key alone, mildest value first ─► all that fit
                                       none does ─► keys together ─► those that are needed, each as mild as it may be
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.errors import InvalidConfig
from service.config import NodeConfig
from service.engine_footprint import DEFAULT_BATCHED_TOKENS
from service.gpu import Gpu
from service.memory_plan import MemoryPlan, plan_memory
from service.reward_footprint import NO_JUDGES, RewardFootprint
from trainer.model_shape import ModelShape
from trainer.ports import suiting_microbatch_tokens

_GIB = 2**30
_METHOD = "tuning.method"
_HIGHEST_FRACTION = 0.95
"""What is advised at most: the driver and other programs need some of the card too."""
_LEAST_CHUNK_TOKENS = 64
_LEAST_BATCHED_TOKENS = 256
_LEAST_MICROBATCH_TOKENS = 64
_LEAST_MODEL_LEN = 64


@dataclass(frozen=True, slots=True)
class Change:
    """A key's new value."""

    key: str
    old: object
    new: object

    def __str__(self) -> str:
        return f"{self.key} = {_toml(self.new)} (now {_toml(self.old)})"


Alternative = tuple[Change, ...]
"""Changes that are enough when all of them are made."""


@dataclass(frozen=True, slots=True)
class Advisor:
    """Plans one model on one GPU with other settings."""

    shape: ModelShape
    gpu: Gpu
    judges: RewardFootprint = NO_JUDGES

    def plan(self, config: NodeConfig) -> MemoryPlan:
        return plan_memory(config, self.shape, self.gpu, judges=self.judges)

    def alternatives(self, config: NodeConfig) -> tuple[Alternative, ...]:
        """Sets of changes, each of which makes this configuration fit; none when nothing that is known here does.

        Another method trains something else: beside it stands a set that keeps the method, where there is one.
        """
        return tuple(_with_its_optimizer(config, changes) for changes in self._fitting(config))

    def _fitting(self, config: NodeConfig) -> tuple[Alternative, ...]:
        alone = {key: change for key in _LEVELS if (change := self._mildest(config, key)) is not None}
        found: list[Alternative] = [(change,) for change in alone.values()]
        if alone.keys() - {_METHOD}:
            return tuple(found)
        keeping = self._together(config, [key for key in _LEVELS if key != _METHOD])
        found = [*([keeping] if keeping else []), *found]
        return tuple(found) or tuple(filter(None, [self._together(config, list(_LEVELS))]))

    def most_sparing(self, config: NodeConfig) -> MemoryPlan:
        """The plan with every key at its most sparing value."""
        for key, levels in _LEVELS.items():
            for value in levels(config, self.plan(config)):
                config = changed(config, {key: value})
        return self.plan(config)

    def _mildest(self, config: NodeConfig, key: str) -> Change | None:
        for value in _LEVELS[key](config, self.plan(config)):
            if self.plan(changed(config, {key: value})).fits:
                return Change(key, value_at(config, key), value)
        return None

    def _together(self, config: NodeConfig, keys: Sequence[str]) -> Alternative:
        """Key after key, mild to strong, until it fits; then whatever was not needed is taken back."""
        chosen: dict[str, object] = {}
        for key in keys:
            now = changed(config, chosen)
            for value in _LEVELS[key](now, self.plan(now)):
                chosen[key] = value
                if self.plan(changed(config, chosen)).fits:
                    return self._needed(config, chosen)
        return ()

    def _needed(self, config: NodeConfig, chosen: dict[str, object]) -> Alternative:
        for key in reversed(list(chosen)):
            others = changed(config, {name: value for name, value in chosen.items() if name != key})
            if self.plan(others).fits:
                del chosen[key]
            elif (milder := self._mildest(others, key)) is not None:
                chosen[key] = milder.new
        return tuple(Change(key, value_at(config, key), value) for key, value in chosen.items())


def require_fit(
    config: NodeConfig, shape: ModelShape, gpu: Gpu | None, plan: MemoryPlan, judges: RewardFootprint = NO_JUDGES
) -> None:
    """Let a plan that fits pass.

    Raises:
        InvalidConfig: it does not; names the key to change, to what, and by how much the plan is too large.
    """
    if plan.fits or gpu is None:
        return
    advisor = Advisor(shape, gpu, judges)
    problem = _problem(config, gpu, plan)
    alternatives = advisor.alternatives(config)
    if not alternatives:
        raise InvalidConfig(
            "engine.model",
            f"{problem}. No setting makes this model fit: the most sparing one still needs "
            f"{_gib(advisor.most_sparing(config).used_bytes)}. Choose a smaller model or a larger GPU",
        )
    listed = "\n".join(f"  {' and '.join(map(str, changes))}" for changes in alternatives)
    raise InvalidConfig(alternatives[0][0].key, f"{problem}. Each of these lines makes it fit:\n{listed}")


def changed(config: NodeConfig, values: Mapping[str, object]) -> NodeConfig:
    """The configuration with other values, by dotted key."""
    for key, value in values.items():
        config = _with(config, key.split("."), value)
    return config


def value_at(config: NodeConfig, key: str) -> object:
    """The value of a dotted key."""
    value: object = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


def _with_its_optimizer(config: NodeConfig, changes: Alternative) -> Alternative:
    """The CPU's optimizer steps no adapter: a change to the method takes it along."""
    if config.tuning.optimizer == "cpu" and any(change.key == _METHOD for change in changes):
        return (*changes, Change("tuning.optimizer", "cpu", "device"))
    return changes


def _problem(config: NodeConfig, gpu: Gpu, plan: MemoryPlan) -> str:
    held = plan.free_bytes is not None and plan.used_bytes > plan.free_bytes
    if plan.excess_bytes == 0:
        return f"the KV cache must hold one sequence of {plan.max_model_len:,} tokens, got {_gib(plan.kv_cache_bytes)}"
    if held and plan.free_bytes is not None:
        return (
            f"the plan needs {_gib(plan.used_bytes)}, but only {_gib(plan.free_bytes)} of the GPU's "
            f"{_gib(gpu.total_bytes)} are free: other programs hold the rest"
        )
    return (
        f"the plan needs {_gib(plan.used_bytes)}, {_gib(plan.excess_bytes)} more than cuda.memory_fraction = "
        f"{config.cuda.memory_fraction:g} allows on {gpu.name} ({_gib(gpu.total_bytes)})"
    )


def _cache_sizes(config: NodeConfig, plan: MemoryPlan) -> Iterator[object]:
    """What the other lines leave, in tenths of a GiB; or nothing set, which takes what is left."""
    configured = config.engine.kv_cache_gib
    if configured is None:
        return
    for size_gib in (
        math.floor(10 * (plan.kv_cache_bytes - plan.excess_bytes) / _GIB) / 10,
        math.ceil(10 * (plan.max_model_len + 32) * plan.kv_bytes_per_token / _GIB) / 10,
    ):
        if size_gib > 0:
            yield size_gib


def _fractions(config: NodeConfig, plan: MemoryPlan) -> Iterator[object]:
    """Up to what the plan needs; down to what other programs leave."""
    if plan.limit_bytes is None:
        return
    total = plan.limit_bytes / config.cuda.memory_fraction
    if plan.free_bytes is not None and plan.free_bytes < plan.limit_bytes:
        fraction = math.floor(100 * plan.free_bytes / total) / 100
        if fraction > 0:
            yield fraction
        return
    for hundredth in range(math.floor(100 * config.cuda.memory_fraction) + 1, round(100 * _HIGHEST_FRACTION) + 1):
        yield hundredth / 100


def _halved(value: int, least: int) -> Iterator[object]:
    while value // 2 >= least:
        value //= 2
        yield value


def _batched_tokens(config: NodeConfig, plan: MemoryPlan) -> Iterator[object]:
    yield from _halved(config.engine.max_num_batched_tokens or DEFAULT_BATCHED_TOKENS, _LEAST_BATCHED_TOKENS)


def _model_lengths(config: NodeConfig, plan: MemoryPlan) -> Iterator[object]:
    longest_reply = max(config.agent.max_tokens, config.tuning.max_tokens)
    yield from _halved(config.engine.max_model_len, max(_LEAST_MODEL_LEN, longest_reply + 1))


def _when(applies: bool, value: object) -> Iterator[object]:
    if applies:
        yield value


_Levels = Callable[[NodeConfig, MemoryPlan], Iterator[object]]

_LEVELS: Mapping[str, _Levels] = {
    "engine.kv_cache_gib": _cache_sizes,
    "tuning.microbatch_tokens": lambda config, plan: _halved(
        config.tuning.microbatch_tokens or suiting_microbatch_tokens(plan.num_parameters, on_gpu=True),
        _LEAST_MICROBATCH_TOKENS,
    ),
    "tuning.full.last_good": lambda config, plan: _when(
        config.tuning.method == "full" and config.tuning.full.last_good == "gpu", "host"
    ),
    "tuning.optimizer": lambda config, plan: _when(
        config.tuning.method == "full" and config.tuning.optimizer == "device", "cpu"
    ),
    "engine.max_model_len": _model_lengths,
    "tuning.logit_chunk_tokens": lambda config, plan: _halved(config.tuning.logit_chunk_tokens, _LEAST_CHUNK_TOKENS),
    "engine.max_num_seqs": lambda config, plan: _halved(config.engine.max_num_seqs, config.engine.live_reserve + 1),
    "engine.max_num_batched_tokens": _batched_tokens,
    "tuning.keep_adapters": lambda config, plan: _halved(config.tuning.keep_adapters, 1),
    "cuda.memory_fraction": _fractions,
    _METHOD: lambda config, plan: _when(config.tuning.method == "full", "adapter"),
}
"""Keys that decide how much memory a node takes, in the order in which they are advised, each with the values to try
from the mildest to the most sparing."""


def _with(section: NodeConfig, path: list[str], value: object) -> NodeConfig:
    inner = value if len(path) == 1 else _with(getattr(section, path[0]), path[1:], value)
    return section.model_copy(update={path[0]: inner})


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"


def _toml(value: object) -> str:
    if value is None:
        return "unset"
    return f'"{value}"' if isinstance(value, str) else str(value)
