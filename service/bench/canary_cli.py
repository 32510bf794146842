"""`coloq bench canary`."""

from typing import Annotated

import typer

SEEDS = 200


def canary_command(
    seeds: Annotated[int, typer.Option(min=1, help="Simulated canaries of each kind.")] = SEEDS,
    requests: Annotated[int, typer.Option(min=100, help="Most requests of one canary.")] = 8_000,
    share: Annotated[float, typer.Option(min=0.01, max=0.5, help="Share of the end users.")] = 0.1,
    quick: Annotated[bool, typer.Option("--quick", help="Five seeds: sees that it works.")] = False,
) -> None:
    """How often a canary stops a harmful and an equal candidate, on simulated traffic. No engine is started."""
    from service.bench.canary import table
    from service.canary.config import CanaryConfig

    config = CanaryConfig(share=share, max_requests=10**9)
    typer.echo(table(config, 5 if quick else seeds, requests))
