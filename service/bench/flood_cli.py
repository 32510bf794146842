"""The command `coloq bench flood`, for service.cli_bench to register."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.bench.cli_options import (
    QUICK_SETTINGS,
    Duration,
    MaxTokens,
    Model,
    Out,
    PromptTokens,
    Quick,
    Seed,
    Setting,
    ShapeName,
    Warmup,
    Work,
    interruptible,
)
from service.bench.options import BenchOptions


def flood_command(
    clients: Annotated[int, typer.Option(min=1, help="Closed loop: clients of the tenant that is watched.")] = 8,
    flood_clients: Annotated[int, typer.Option(min=1, help="Closed loop: clients of the tenant that floods.")] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all phases in turn.")] = 3,
    out: Out = Path("bench"),
    work: Work = Path(".coloq-bench"),
    shape: ShapeName = "qwen2.5-1.5b",
    model: Model = None,
    prompt_tokens: PromptTokens = 128,
    max_tokens: MaxTokens = 128,
    warmup: Warmup = 5.0,
    duration: Duration = 30.0,
    seed: Seed = 0,
    setting: Setting = None,
    quick: Quick = False,
) -> None:
    """Watch one tenant's latency alone, beside a neighbour that keeps its half of the engine busy, and beside a flood.

    The fair queue keeps the flood from moving the tenant's 99th percentile; what a fuller batch costs shows without it.
    """
    from service.bench.flood import bench_flood

    options = BenchOptions(
        out, work, shape, model, prompt_tokens, max_tokens, 1.0, warmup, duration, seed, tuple(setting or ())
    )
    if quick:
        options = replace(
            options,
            shape="tiny",
            prompt_tokens=64,
            max_tokens=32,
            warmup_s=1.0,
            duration_s=4.0,
            overrides=(*QUICK_SETTINGS, *options.overrides),
        )
        clients, flood_clients, rounds = 2, 64, 1
    with interruptible():
        bench_flood(options, clients=clients, flood_clients=flood_clients, rounds=rounds, console=Console())
