"""The command `coloq bench flood`."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.bench.options import BenchOptions

_QUICK_SETTINGS = ("engine.max_num_seqs=8", "engine.live_reserve=2", "engine.kv_cache_gib=0.1", "tuning.adapter.rank=8")


def flood_command(
    clients: Annotated[int, typer.Option(min=1, help="Closed loop: clients of the tenant that is watched.")] = 8,
    flood_clients: Annotated[int, typer.Option(min=1, help="Closed loop: clients of the tenant that floods.")] = 1024,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of all phases in turn.")] = 3,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the results go.")] = Path("bench"),
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where models are kept.")] = Path(".coloq-bench"),
    shape: Annotated[str, typer.Option(metavar="NAME", help="A shape with random weights.")] = "qwen2.5-1.5b",
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="A model's folder, instead of a shape.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt.")] = 128,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a reply.")] = 128,
    warmup: Annotated[float, typer.Option(min=0, help="Seconds of load before each measured window.")] = 5.0,
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds of each measured window.")] = 30.0,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts.")] = 0,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A key of the configuration.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smallest shape, short windows: sees that it works.")] = False,
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
            overrides=(*_QUICK_SETTINGS, *options.overrides),
        )
        clients, flood_clients, rounds = 2, 64, 1
    try:
        bench_flood(options, clients=clients, flood_clients=flood_clients, rounds=rounds, console=Console())
    except KeyboardInterrupt:
        typer.echo("Stopped; nothing is left running.", err=True)
        raise typer.Exit(130) from None
