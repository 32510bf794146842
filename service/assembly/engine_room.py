"""The engine's side of a node: the process that owns the device, and what admits requests to it.

Imports vLLM (through service.engine): set the environment first (service.engine_environment).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from service.assembly.ground import Ground
from service.config import NodeConfig
from service.encoder import ChatEncoder
from service.engine import VllmEngine
from service.engine_rewards import FOLDER, EngineRewards, load_rewards
from service.engine_trainer import EngineTrainer
from service.memory_plan import MemoryPlan
from service.pacing import LiveRequests, ScoringGate
from service.routing import PolicyRoutes
from service.supervised_engine import SupervisedEngine
from service.versions import AdapterVersions, LiveVersions
from trainer.footprint import num_adapter_slots


@dataclass(frozen=True, slots=True)
class EngineRoom:
    """An engine that is not started yet, the learner in its process, and the model's own encoder."""

    engine: SupervisedEngine
    trainer: EngineTrainer
    encoder: ChatEncoder
    live: LiveRequests
    gate: ScoringGate
    rewards: EngineRewards
    """Reward models of the configuration; what holds them is the engine process."""
    routes: PolicyRoutes
    """Which policy answers whom."""


async def open_engine_room(ground: Ground, model: str, plan: MemoryPlan, worker: str) -> EngineRoom:
    """Load the encoder and prepare the engine. The caller starts it, and stops it.

    Args:
        model: the folder or Hugging Face id behind ``config.engine.model``.
        plan: sizes the KV cache.
        worker: import path of the engine process's worker class.

    Raises:
        ModelError: the model has no usable tokenizer.
        InvalidConfig: a reward model is not there.
    """
    config, metrics = ground.config, ground.metrics
    encoder = await asyncio.to_thread(ChatEncoder.load, model)
    live, routes = LiveRequests(metrics), PolicyRoutes()
    engine = SupervisedEngine(
        config.engine,
        _launcher(config, model, plan, worker),
        versions=LiveVersions() if config.tuning.method == "full" else AdapterVersions(routes),
        on_restart=metrics.engine_restarted,
        on_live=live.add,
    )
    rewards = await load_rewards(config, model, ground.data_dir / FOLDER, engine)
    return EngineRoom(engine, EngineTrainer(engine), encoder, live, ScoringGate(), rewards, routes)


def _launcher(config: NodeConfig, model: str, plan: MemoryPlan, worker: str) -> Callable[[], Awaitable[VllmEngine]]:
    return partial(
        VllmEngine.launch,
        model,
        config.engine,
        num_adapters=num_adapter_slots(config.tuning) if config.tuning.method == "adapter" else 0,
        adapter_rank=config.tuning.adapter.rank,
        target_modules=config.tuning.adapter.target_modules,
        kv_cache_bytes=plan.kv_cache_bytes,
        worker=worker,
    )
