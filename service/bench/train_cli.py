"""The command `coloq bench train`, for service.cli_bench to register."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from agent.errors import InvalidInput
from service.bench.cli_options import (
    Model,
    PromptTokens,
    Quick,
    Seed,
    Setting,
    ShapeName,
    TrlMicrobatch,
    VllmArguments,
    VllmMemory,
    Work,
    batch_shape,
    divisor,
    interruptible,
    words,
)
from service.bench.options import BenchOptions

_METHODS = ("adapter", "full")
_QUICK_SETTINGS = ("engine.max_num_seqs=8", "engine.live_reserve=2", "engine.kv_cache_gib=0.1")

_Method = Annotated[str, typer.Option(help="adapter, full, or both, separated by a comma.")]
_Steps = Annotated[int, typer.Option(min=0, help="Timed steps of the learner alone; 0 leaves it out.")]
_BatchSize = Annotated[int, typer.Option(min=1, help="Sequences of the learner's batch.")]
_Length = Annotated[int, typer.Option(min=2, help="Tokens of its sequences, prompt and reply.")]
_MicrobatchTokens = Annotated[
    int | None, typer.Option(min=32, help="Most positions of a forward pass; the node's default without it.")
]
_Rank = Annotated[int, typer.Option(min=1, help="LoRA rank.")]
_Against = Annotated[str | None, typer.Option(help="`trl`: GRPO end to end, on a node and with TRL.")]
_PromptsPerStep = Annotated[int, typer.Option(min=1, help="GRPO: prompts of a step.")]
_GroupSize = Annotated[int, typer.Option(min=2, help="GRPO: replies to each prompt.")]
_GrpoSteps = Annotated[int, typer.Option(min=3, help="GRPO: steps; the first 2 are not measured.")]
_PublishEvery = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="GRPO: the node publishes after so many steps. Without it after each by method adapter, and once by full, "
        "whose steps go live at once and whose weights would fill a disk.",
    ),
]
_Liger = Annotated[bool, typer.Option("--liger", help="TRL: with Liger's kernels.")]
_Timeout = Annotated[float, typer.Option(min=1, help="Seconds that each measurement may take.")]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="Where JSON and logs go.")]
_MaxTokens = Annotated[int, typer.Option(min=1, help="Tokens of a reply, which are trained on.")]


def train_command(
    method: _Method = "adapter,full",
    steps: _Steps = 5,
    batch_size: _BatchSize = 64,
    length: _Length = 256,
    microbatch_tokens: _MicrobatchTokens = None,
    rank: _Rank = 16,
    against: _Against = None,
    prompts_per_step: _PromptsPerStep = 8,
    group_size: _GroupSize = 8,
    grpo_steps: _GrpoSteps = 6,
    publish_every: _PublishEvery = None,
    trl_microbatch: TrlMicrobatch = 16,
    vllm_memory: VllmMemory = 0.3,
    vllm_arguments: VllmArguments = "{}",
    liger: _Liger = False,
    timeout: _Timeout = 600.0,
    out: _Out = Path("bench"),
    work: Work = Path(".coloq-bench"),
    shape: ShapeName = "qwen2.5-1.5b",
    model: Model = None,
    prompt_tokens: PromptTokens = 128,
    max_tokens: _MaxTokens = 128,
    seed: Seed = 0,
    setting: Setting = None,
    quick: Quick = False,
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
        batch=batch_shape(batch_size, length, max_tokens, option="--max-tokens"),
        num_steps=steps,
        microbatch_tokens=microbatch_tokens,
        rank=rank,
        against_trl=against == "trl",
        prompts_per_step=prompts_per_step,
        group_size=group_size,
        num_grpo_steps=grpo_steps,
        publish_every=publish_every,
        trl_microbatch=divisor(trl_microbatch, prompts_per_step * group_size),
        vllm_memory=vllm_memory,
        vllm_arguments=vllm_arguments,
        liger=liger,
        timeout_s=timeout,
    )
    with interruptible():
        bench_train(options, train, console=Console())


def _methods(text: str) -> tuple[str, ...]:
    methods = words(text)
    if not methods or not set(methods) <= set(_METHODS):
        raise InvalidInput("--method", f"must be of {', '.join(_METHODS)}, got {text}")
    return methods
