"""The command `coloq bench train`, for service.cli_bench to register."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agent.errors import InvalidInput
from service.bench.control import BatchShape
from service.bench.options import BenchOptions

_METHODS = ("adapter", "full")
_QUICK_SETTINGS = ("engine.max_num_seqs=8", "engine.live_reserve=2", "engine.kv_cache_gib=0.1")
_INTERRUPTED = 130


def train_command(
    method: Annotated[str, typer.Option(help="adapter, full, or both, separated by a comma.")] = "adapter,full",
    steps: Annotated[int, typer.Option(min=0, help="Timed steps of the learner alone; 0 leaves it out.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences of the learner's batch.")] = 64,
    length: Annotated[int, typer.Option(min=2, help="Tokens of its sequences, prompt and reply.")] = 256,
    microbatch_tokens: Annotated[
        int | None, typer.Option(min=32, help="Most positions of a forward pass; the node's default without it.")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="LoRA rank.")] = 16,
    against: Annotated[str | None, typer.Option(help="`trl`: GRPO end to end, on a node and with TRL.")] = None,
    prompts_per_step: Annotated[int, typer.Option(min=1, help="GRPO: prompts of a step.")] = 8,
    group_size: Annotated[int, typer.Option(min=2, help="GRPO: replies to each prompt.")] = 8,
    grpo_steps: Annotated[int, typer.Option(min=3, help="GRPO: steps; the first 2 are not measured.")] = 6,
    publish_every: Annotated[int, typer.Option(min=1, help="GRPO: the node publishes after so many steps.")] = 1,
    trl_microbatch: Annotated[int, typer.Option(min=1, help="TRL: sequences per forward pass.")] = 16,
    vllm_memory: Annotated[float, typer.Option(min=0.01, max=1, help="TRL: vLLM's share of the GPU.")] = 0.3,
    vllm_arguments: Annotated[str, typer.Option(metavar="JSON", help="TRL: more arguments of vLLM's LLM.")] = "{}",
    liger: Annotated[bool, typer.Option("--liger", help="TRL: with Liger's kernels.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that each measurement may take.")] = 600.0,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where JSON and logs go.")] = Path("bench"),
    work: Annotated[Path, typer.Option(metavar="DIR", help="Where models are kept between runs.")] = Path(
        ".coloq-bench"
    ),
    shape: Annotated[
        str, typer.Option(metavar="NAME", help="tiny, qwen2.5-1.5b or another of `coloq plan`: random weights.")
    ] = "qwen2.5-1.5b",
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="A model's folder, instead of a shape.")] = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="GRPO: tokens of a prompt, templates included.")] = 128,
    max_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a reply, which are trained on.")] = 128,
    seed: Annotated[int, typer.Option(min=0, help="Of prompts and sampling.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A key of the node's configuration; repeat for more."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Smallest shape, few steps: sees that it works.")] = False,
) -> None:
    """Time the learner's step alone against the device's matrix rate, and GRPO end to end against TRL.

    The learner gets synthetic batches, and no engine runs. End to end, a node (no other load on it) and TRL's
    GRPOTrainer in colocate mode take turns on the same model, token counts and reward.
    """
    from service.bench.train import TrainOptions, bench_train

    if against not in (None, "trl"):
        raise InvalidInput("--against", f"must be trl, got {against}")
    settings = tuple(setting or ())
    if quick:
        shape, prompt_tokens, max_tokens = "tiny", 64, 8
        steps, batch_size, length, microbatch_tokens, rank = min(steps, 2), 4, 64, 128, 8
        prompts_per_step, group_size, grpo_steps, trl_microbatch = 2, 4, 4, 4
        vllm_memory, vllm_arguments = 0.1, '{"enforce_eager": true}'
        settings = (*_QUICK_SETTINGS, *settings)
    options = BenchOptions(out, work, shape, model, prompt_tokens, max_tokens, 1.0, 0.0, 0.0, seed, settings)
    train = TrainOptions(
        methods=_methods(method),
        batch=_batch(batch_size, length, max_tokens),
        num_steps=steps,
        microbatch_tokens=microbatch_tokens,
        rank=rank,
        against_trl=against == "trl",
        prompts_per_step=prompts_per_step,
        group_size=group_size,
        num_grpo_steps=grpo_steps,
        publish_every=publish_every,
        trl_microbatch=_divisor(trl_microbatch, prompts_per_step * group_size),
        vllm_memory=vllm_memory,
        vllm_arguments=vllm_arguments,
        liger=liger,
        timeout_s=timeout,
    )
    try:
        bench_train(options, train, console=Console())
    except KeyboardInterrupt:
        typer.echo("Stopped; nothing is left running.", err=True)
        raise typer.Exit(_INTERRUPTED) from None


def _methods(text: str) -> tuple[str, ...]:
    methods = tuple(part.strip() for part in text.split(",") if part.strip())
    if not methods or not set(methods) <= set(_METHODS):
        raise InvalidInput("--method", f"must be of {', '.join(_METHODS)}, got {text}")
    return methods


def _batch(batch_size: int, length: int, reply_tokens: int) -> BatchShape:
    if reply_tokens >= length:
        raise InvalidInput("--max-tokens", f"must be below --length {length}, got {reply_tokens}")
    return BatchShape(batch_size=batch_size, length=length, reply_tokens=reply_tokens)


def _divisor(microbatch: int, num_sequences: int) -> int:
    if num_sequences % microbatch:
        raise InvalidInput("--trl-microbatch", f"must divide the {num_sequences} replies of a step, got {microbatch}")
    return microbatch
