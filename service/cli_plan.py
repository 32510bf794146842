"""`coloq plan`: what a node would hold in memory, on this machine's GPU or on one that is not here."""

import json
from pathlib import Path

import typer
from rich.console import Console

from service.config import NodeConfig
from service.config_file import load
from service.gpu import Gpu, engine_gpu, find_gpu
from service.memory_plan import MemoryPlan, plan_memory
from service.model_shape import find_shape
from service.plan_advice import Advisor, changed, require_fit
from service.plan_table import plan_record, plan_table
from service.reward_footprint import RewardFootprint, reward_footprint
from trainer.model_shape import ModelShape


def show_plan(config_path: Path | None, *, gpu_name: str | None, model: str | None, as_json: bool) -> None:
    """Print the plan.

    Args:
        config_path: None for the defaults of every key.
        gpu_name: a card's name or a number of GiB; None for this machine's own GPU, or its CPU when it has none.
        model: goes before ``engine.model``.

    Raises:
        InvalidConfig: the plan does not fit (it is printed first), or there is no such file, GPU or model.
    """
    config = load(config_path) if config_path is not None else NodeConfig()
    if model is not None:
        config = changed(config, {"engine.model": model})
    gpu = find_gpu(gpu_name) if gpu_name is not None else _own_gpu()
    shape = find_shape(config.engine.model)
    judges = reward_footprint(config)
    plan = plan_memory(config, shape, gpu, judges=judges)
    if as_json:
        typer.echo(json.dumps(_record(config, shape, gpu, plan, judges), indent=2))
    else:
        Console().print(plan_table(plan))
    require_fit(config, shape, gpu, plan, judges)


def _own_gpu() -> Gpu | None:
    """Its size alone: what programs hold there now is no matter of a plan."""
    gpu = engine_gpu()
    return Gpu(gpu.name, gpu.total_bytes) if gpu is not None else None


def _record(
    config: NodeConfig, shape: ModelShape, gpu: Gpu | None, plan: MemoryPlan, judges: RewardFootprint
) -> dict[str, object]:
    alternatives = () if gpu is None or plan.fits else Advisor(shape, gpu, judges).alternatives(config)
    advice = [{change.key: change.new for change in changes} for changes in alternatives]
    return {**plan_record(plan), "advice": advice}
