"""`coloq bench`: measurements of a node, most of them on random weights. Nothing is fetched; results go to a folder.

    front     the service alone, with a fake that answers at once
    flood     one tenant's latency while another floods the node
    serve     a node under load, alone or beside bare vLLM
    coserve   the same load with and without training beside it
    swap      publications under load
    suite     coserve and swap on one node, which starts once
    language  how often the language contract finds a wrong sentence, and what it costs
    train     training steps and whole GRPO steps, beside TRL
    gate      how often the gate blocks a worse candidate, and an equal one
    canary    how often a canary ends wrongly, on simulated traffic
    learn     whether a real model gets better on held-out prompts, beside TRL, with old rollouts

With `--quick` each runs in about a minute on a CPU with the smallest shape, to see that everything works; figures worth
keeping need a GPU, and the defaults.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agent.errors import InvalidInput
from service.bench.canary_cli import canary_command
from service.bench.cli_options import (
    QUICK_SETTINGS,
    BatchSize,
    Duration,
    Length,
    MaxTokens,
    Model,
    Out,
    PromptTokens,
    Quick,
    ReplyTokens,
    Seed,
    Setting,
    ShapeName,
    Temperature,
    Warmup,
    Work,
    batch_shape,
    interruptible,
    positive_numbers,
)
from service.bench.control import BatchShape, PaceOrder, PublishOrder
from service.bench.flood_cli import flood_command
from service.bench.gate_cli import gate_command
from service.bench.language_cli import language_command
from service.bench.learn_cli import learn_command
from service.bench.load import Arrivals, Closed, Poisson
from service.bench.options import BenchOptions
from service.bench.train_cli import train_command

bench_app = typer.Typer(help="Measure a node: load, training beside it, swaps.", no_args_is_help=True)
bench_app.command("canary")(canary_command)
bench_app.command("train")(train_command)
bench_app.command("learn")(learn_command)
bench_app.command("flood")(flood_command)
bench_app.command("language")(language_command)
bench_app.command("gate")(gate_command)

Rounds = Annotated[
    int, typer.Option(min=1, help="Loads with training at each rate and pace, each between two without.")
]
Paces = Annotated[
    str,
    typer.Option(
        metavar="NUM_SMS:DUTY,…",
        help="Coserve: then hold the trainer to each of these at the first rate, instead of the controller.",
    ),
]

_QUICK_SHAPE = "tiny"
_QUICK_PROMPT, _QUICK_REPLY = 64, 8
_QUICK_WARMUP_S, _QUICK_DURATION_S = 0.5, 3.0
_SWAP_BATCH = BatchShape(batch_size=8, length=64, reply_tokens=32)
_QUICK_BATCH = BatchShape(batch_size=4, length=64, reply_tokens=32)


@bench_app.command("serve")
def serve_command(
    rates: Annotated[str, typer.Option(help="Open loop: requests per second, separated by commas.")] = "20,60,100",
    clients: Annotated[str, typer.Option(help="Closed loop: clients, separated by commas.")] = "1,64,256",
    against: Annotated[str | None, typer.Option(help="`vllm`: the same load on bare vLLM, in turn.")] = None,
    stream_peer: Annotated[
        bool, typer.Option("--stream-peer", help="Stream from vLLM, to measure its first token and inter-token time.")
    ] = False,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of node, then peer.")] = 2,
    out: Out = Path("bench"),
    work: Work = Path(".coloq-bench"),
    shape: ShapeName = "qwen2.5-1.5b",
    model: Model = None,
    prompt_tokens: PromptTokens = 128,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 1.0,
    warmup: Warmup = 5.0,
    duration: Duration = 30.0,
    seed: Seed = 0,
    setting: Setting = None,
    quick: Quick = False,
) -> None:
    """Load a node by Poisson arrivals and by clients that wait, alone or in turn with bare vLLM on the same prompts.

    A request counts in a window when it was due in it. `--set engine.kv_cache_gib=30` gives both the same cache.
    """
    from service.bench.serve import bench_serve

    if against not in (None, "vllm"):
        raise InvalidInput("--against", f"must be vllm, got {against}")
    options = _options(out, work, shape, model, prompt_tokens, max_tokens, temperature, warmup, duration, seed, setting)
    loads: list[Arrivals] = [Poisson(rate) for rate in positive_numbers("--rates", rates)]
    loads += [Closed(int(count)) for count in positive_numbers("--clients", clients)]
    if quick:
        options, loads, rounds = _quickly(options), [Poisson(4.0), Closed(2)], 1
    with interruptible():
        bench_serve(
            options,
            loads,
            against_vllm=against == "vllm",
            stream_peer=stream_peer,
            rounds=rounds,
            console=Console(),
        )


@bench_app.command("coserve")
def coserve_command(
    rates: Annotated[str, typer.Option(help="Requests per second, separated by commas.")] = "20,60,100",
    paces: Paces = "",
    rounds: Rounds = 1,
    alone: Annotated[float, typer.Option(min=0.1, help="Seconds of training without load.")] = 15.0,
    batch_size: BatchSize = 64,
    length: Length = 256,
    reply_tokens: ReplyTokens = 128,
    out: Out = Path("bench"),
    work: Work = Path(".coloq-bench"),
    shape: ShapeName = "qwen2.5-1.5b",
    model: Model = None,
    prompt_tokens: PromptTokens = 128,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 1.0,
    warmup: Warmup = 5.0,
    duration: Duration = 20.0,
    seed: Seed = 0,
    setting: Setting = None,
    quick: Quick = False,
) -> None:
    """Load a node without training, with training, and without again, in rounds; training alone first, for comparison.

    Training works on synthetic batches without end, so it depends on nothing that the journal holds. Its micro-batches
    and method are the node's: `--set tuning.microbatch_tokens=8192`, `--set tuning.method=full`.
    """
    from service.bench.coserve import bench_coserve

    options = _options(out, work, shape, model, prompt_tokens, max_tokens, temperature, warmup, duration, seed, setting)
    batch = batch_shape(batch_size, length, reply_tokens)
    chosen = positive_numbers("--rates", rates)
    if quick:
        options, chosen, batch, alone = _quickly(options), [4.0], _QUICK_BATCH, _QUICK_DURATION_S
    with interruptible():
        bench_coserve(options, chosen, batch, alone_s=alone, paces=_paces(paces), num_rounds=rounds, console=Console())


@bench_app.command("front")
def front_command(
    clients: Annotated[str, typer.Option(help="Closed loop: clients, separated by commas.")] = "1,2,8",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every front in turn.")] = 3,
    out: Out = Path("bench"),
    warmup: Warmup = 1.0,
    duration: Duration = 5.0,
    quick: Quick = False,
) -> None:
    """Measure what the service itself adds to a request: HTTP, keys, limits, fair queue. No engine is started.

    Each client sends the next request when the last one is answered; the generator is a process of its own.
    """
    from service.bench.front import FrontOptions, bench_front

    counts = [int(count) for count in positive_numbers("--clients", clients)]
    if quick:
        counts, rounds, warmup, duration = counts[:1], 1, _QUICK_WARMUP_S, 1.0
    with interruptible():
        bench_front(FrontOptions(out, counts, rounds, warmup, duration), Console())


@bench_app.command("memory")
def memory_command(
    count: Annotated[int, typer.Option(min=100, help="Requests in all.")] = 20_000,
    bound: Annotated[float, typer.Option(min=0, metavar="MIB", help="Most growth after the first fifth.")] = 10.0,
    out: Out = Path("bench"),
) -> None:
    """Send requests of every kind to a front with a scripted engine, and watch its resident memory.

    Ends with an error when memory grows by more than the bound between the first fifth and the end.
    """
    from service.bench.memory import MemoryOptions, bench_memory

    with interruptible():
        bench_memory(MemoryOptions(out, count, bound), Console())


@bench_app.command("swap")
def swap_command(
    count: Annotated[int, typer.Option(min=1, help="Publications.")] = 50,
    interval: Annotated[float, typer.Option(min=1, help="Milliseconds from one publication to the next.")] = 1000.0,
    window: Annotated[
        float, typer.Option(min=1, help="Milliseconds around a publication whose longest gap counts.")
    ] = 200.0,
    rate: Annotated[float | None, typer.Option(help="Open loop: requests per second, instead of clients.")] = None,
    clients: Annotated[int, typer.Option(min=1, help="Closed loop: clients.")] = 64,
    batch_size: BatchSize = 8,
    length: Length = 64,
    reply_tokens: ReplyTokens = 32,
    out: Out = Path("bench"),
    work: Work = Path(".coloq-bench"),
    shape: ShapeName = "qwen2.5-1.5b",
    model: Model = None,
    prompt_tokens: PromptTokens = 128,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 1.0,
    warmup: Warmup = 5.0,
    seed: Seed = 0,
    setting: Setting = None,
    quick: Quick = False,
) -> None:
    """Publish fresh versions under load: each is made by one optimizer step, installed, activated; the oldest goes.

    Counts what failed, was cut short or went backwards, and compares the longest gap between two engine steps with and
    without a publication, in windows of equal length.
    """
    from service.bench.swap import bench_swap

    options = _options(out, work, shape, model, prompt_tokens, max_tokens, temperature, warmup, 0.0, seed, setting)
    arrivals: Arrivals = Closed(clients) if rate is None else Poisson(rate)
    batch = batch_shape(batch_size, length, reply_tokens)
    if quick:
        options, arrivals, batch, count, interval = _quickly(options), Closed(3), _QUICK_BATCH, 10, 400.0
    order = PublishOrder(count=count, interval_ms=interval, window_ms=window, batch=batch)
    with interruptible():
        bench_swap(options, arrivals, order, console=Console())


@bench_app.command("suite")
def suite_command(
    rates: Annotated[str, typer.Option(help="Coserve: requests per second, separated by commas.")] = "20,60,100",
    paces: Paces = "",
    rounds: Rounds = 1,
    alone: Annotated[float, typer.Option(min=0.1, help="Coserve: seconds of training without load.")] = 15.0,
    count: Annotated[int, typer.Option(min=1, help="Swap: publications.")] = 1000,
    interval: Annotated[float, typer.Option(min=1, help="Swap: milliseconds between publications.")] = 100.0,
    window: Annotated[float, typer.Option(min=1, help="Swap: milliseconds around a publication.")] = 40.0,
    rate: Annotated[float, typer.Option(help="Swap: requests per second.")] = 60.0,
    batch_size: BatchSize = 64,
    length: Length = 256,
    reply_tokens: ReplyTokens = 128,
    out: Out = Path("bench"),
    work: Work = Path(".coloq-bench"),
    shape: ShapeName = "qwen2.5-1.5b",
    model: Model = None,
    prompt_tokens: PromptTokens = 128,
    max_tokens: MaxTokens = 128,
    temperature: Temperature = 1.0,
    warmup: Warmup = 5.0,
    duration: Duration = 20.0,
    seed: Seed = 0,
    setting: Setting = None,
    quick: Quick = False,
) -> None:
    """Coserve, then swap, on one node: what is measured takes less time than a node with CUDA graphs needs to start."""
    from service.bench.coserve import coserve_of
    from service.bench.suite import bench_suite
    from service.bench.swap import swap_of

    options = _options(out, work, shape, model, prompt_tokens, max_tokens, temperature, warmup, duration, seed, setting)
    batch, chosen, arrivals = (
        batch_shape(batch_size, length, reply_tokens),
        positive_numbers("--rates", rates),
        Poisson(rate),
    )
    if quick:
        options, chosen, batch, alone = _quickly(options), [4.0], _QUICK_BATCH, _QUICK_DURATION_S
        arrivals, count, interval = Poisson(4.0), 10, 400.0
    order = PublishOrder(count=count, interval_ms=interval, window_ms=window, batch=_SWAP_BATCH)
    console = Console()
    with interruptible():
        bench_suite(
            coserve_of(options, chosen, batch, alone_s=alone, paces=_paces(paces), num_rounds=rounds, console=console),
            swap_of(options, arrivals, order, console=console),
            console=console,
        )


def _options(
    out: Path,
    work: Path,
    shape: str,
    model: Path | None,
    prompt_tokens: int,
    max_tokens: int,
    temperature: float,
    warmup_s: float,
    duration_s: float,
    seed: int,
    settings: list[str] | None,
) -> BenchOptions:
    return BenchOptions(
        out=out,
        work=work,
        shape=shape,
        model=model,
        prompt_tokens=prompt_tokens,
        max_tokens=max_tokens,
        temperature=temperature,
        warmup_s=warmup_s,
        duration_s=duration_s,
        seed=seed,
        overrides=tuple(settings or ()),
    )


def _quickly(options: BenchOptions) -> BenchOptions:
    return replace(
        options,
        shape=_QUICK_SHAPE,
        prompt_tokens=_QUICK_PROMPT,
        max_tokens=_QUICK_REPLY,
        warmup_s=_QUICK_WARMUP_S,
        duration_s=_QUICK_DURATION_S,
        overrides=(*QUICK_SETTINGS, *options.overrides),
    )


def _paces(text: str) -> list[PaceOrder]:
    try:
        return [PaceOrder.parse(pace) for pace in text.split(",") if pace]
    except ValueError as error:
        raise InvalidInput("--paces", f"must be NUM_SMS:DUTY, such as 64:0.8,104:1, got {text}") from error
