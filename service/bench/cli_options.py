"""What several bench commands share of the command line: options, and how their texts are read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from agent.errors import InvalidInput
from service.bench.control import BatchShape

Out = Annotated[Path, typer.Option(metavar="DIR", help="Where JSON and charts go.")]
Work = Annotated[Path, typer.Option(metavar="DIR", help="Where models are kept between runs.")]
ShapeName = Annotated[
    str, typer.Option(metavar="NAME", help="tiny, qwen2.5-1.5b or another of `coloq plan`: random weights.")
]
Model = Annotated[Path | None, typer.Option(metavar="DIR", help="A model's folder, instead of a shape.")]
PromptTokens = Annotated[int, typer.Option(min=1, help="Tokens of a prompt, templates included; within 5 %.")]
MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens of a reply.")]
Temperature = Annotated[float, typer.Option(min=0, max=2, help="Sampling temperature.")]
Warmup = Annotated[float, typer.Option(min=0, help="Seconds of load before each measured window.")]
Duration = Annotated[float, typer.Option(min=0.1, help="Seconds of each measured window.")]
Seed = Annotated[int, typer.Option(min=0, help="Of arrivals, prompts and weights of training batches.")]
Setting = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A key of the node's configuration; repeat for more."),
]
Quick = Annotated[bool, typer.Option("--quick", help="Smallest shape, short windows: sees that it works.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Sequences of a training batch.")]
Length = Annotated[int, typer.Option(min=2, help="Tokens of a training sequence, prompt and reply.")]
ReplyTokens = Annotated[int, typer.Option(min=1, help="Tokens of a training sequence that are trained on.")]
VllmMemory = Annotated[float, typer.Option(min=0.01, max=1, help="TRL: vLLM's share of the GPU.")]
VllmArguments = Annotated[str, typer.Option(metavar="JSON", help="TRL: more arguments of vLLM's LLM.")]
TrlMicrobatch = Annotated[int, typer.Option(min=1, help="TRL: sequences per forward pass.")]

QUICK_SETTINGS = ("engine.max_num_seqs=8", "engine.live_reserve=2", "engine.kv_cache_gib=0.1", "tuning.adapter.rank=8")
"""Of a node that is measured with --quick."""
_INTERRUPTED = 130


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C and SIGTERM end a bench with status 130; what it had measured is written."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("Stopped; nothing is left running.", err=True)
        raise typer.Exit(_INTERRUPTED) from None


def words(text: str) -> tuple[str, ...]:
    """``a, b,`` is a and b."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def positive_numbers(option: str, text: str) -> list[float]:
    """Positive numbers out of ``1,2.5``; none out of an empty text."""
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        numbers = [0.0]
    if any(number <= 0 for number in numbers):
        raise InvalidInput(option, f"must be positive numbers separated by commas, got {text}")
    return numbers


def batch_shape(batch_size: int, length: int, reply_tokens: int, *, option: str = "--reply-tokens") -> BatchShape:
    """Raises InvalidInput, naming ``option``, when nothing would be left of a sequence for its prompt."""
    if reply_tokens >= length:
        raise InvalidInput(option, f"must be below --length {length}, got {reply_tokens}")
    return BatchShape(batch_size=batch_size, length=length, reply_tokens=reply_tokens)


def divisor(microbatch: int, num_sequences: int) -> int:
    """TRL's micro-batch. Raises InvalidInput when it does not divide a step."""
    if num_sequences % microbatch:
        raise InvalidInput("--trl-microbatch", f"must divide the {num_sequences} replies of a step, got {microbatch}")
    return microbatch
