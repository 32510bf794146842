"""The command `coloq bench gate`, for service.cli_bench to register."""

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from agent.errors import InvalidInput
from trainer.config import GateConfig

_DEFAULTS = GateConfig()


def gate_command(
    equal: Annotated[int, typer.Option(min=0, help="Comparisons of equal policies.")] = 200,
    planted: Annotated[int, typer.Option(min=0, help="Comparisons of each planted strength.")] = 20,
    strengths: Annotated[
        str, typer.Option(help="Shares of the Polish prompts that the candidate answers in English.")
    ] = "1,0.5,0.2,0.1",
    prompts: Annotated[int, typer.Option(min=1, max=108, help="Held-out prompts of each language.")] = (
        _DEFAULTS.num_prompts
    ),
    replies: Annotated[int, typer.Option(min=1, help="Replies of each language and policy.")] = _DEFAULTS.num_replies,
    margin: Annotated[float, typer.Option(min=0, help="How much worse a candidate may be.")] = _DEFAULTS.margin,
    undetermined: Annotated[
        str, typer.Option(help="`publish` or `reject`: what becomes of a candidate without a verdict.")
    ] = _DEFAULTS.undetermined,
    seed: Annotated[int, typer.Option(min=0, help="Number of the first comparison.")] = 0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the JSON goes.")] = Path("bench"),
    quick: Annotated[bool, typer.Option("--quick", help="Three comparisons of each kind: sees that it works.")] = False,
) -> None:
    """Count how often the gate blocks a candidate that is worse in one of ten languages, and one that is equal.

    Policies are scripted from sentences of the UDHR; panel, rules, detectors and statistics are the product's.
    """
    from service.bench.gate import GateOptions, bench_gate

    options = GateOptions(
        out=out,
        config=GateConfig(
            num_prompts=prompts, num_replies=replies, margin=margin, undetermined=_undetermined(undetermined)
        ),
        num_equal=min(equal, 3) if quick else equal,
        num_planted=min(planted, 3) if quick else planted,
        strengths=_strengths(strengths),
        first=seed,
    )
    asyncio.run(bench_gate(options, Console()))


def _undetermined(word: str) -> Literal["publish", "reject"]:
    known: dict[str, Literal["publish", "reject"]] = {"publish": "publish", "reject": "reject"}
    if word not in known:
        raise InvalidInput("--undetermined", f"must be publish or reject, got {word}")
    return known[word]


def _strengths(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        shares = (-1.0,)
    if not all(0 < share <= 1 for share in shares):
        raise InvalidInput("--strengths", f"must be numbers above 0 and up to 1 separated by commas, got {text}")
    return shares
