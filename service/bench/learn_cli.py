"""The command `coloq bench learn`, for service.cli_bench to register."""

from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.console import Console

from agent.errors import InvalidInput
from service import models
from trainer.objective_settings import ImportanceCorrection

_DEFAULT_MODEL = "smollm2-135m-instruct"
_INTERRUPTED = 130
_QUICK_SETTINGS = ("engine.max_num_seqs=16", "engine.live_reserve=2", "tuning.adapter.rank=8")


def learn_command(
    model: Annotated[
        str, typer.Option(metavar="NAME_OR_DIR", help="An embedded model's name, or a folder.")
    ] = _DEFAULT_MODEL,
    languages: Annotated[str | None, typer.Option(help="Codes separated by commas; all sixteen without it.")] = None,
    train_prompts: Annotated[int, typer.Option(min=1, help="Prompts in the journal, all languages together.")] = 640,
    held_out_prompts: Annotated[int, typer.Option(min=1, help="Prompts of an exam.")] = 128,
    exam_replies: Annotated[int, typer.Option(min=1, help="Replies to each prompt of an exam.")] = 2,
    seeds: Annotated[str, typer.Option(help="Runs on the node: seeds separated by commas.")] = "0,1,2",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of a run.")] = 60,
    prompts_per_step: Annotated[int, typer.Option(min=1, help="Prompts of a step.")] = 8,
    group_size: Annotated[int, typer.Option(min=2, help="Replies to each prompt.")] = 8,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="AdamW's learning rate.")] = 2e-4,
    rank: Annotated[int, typer.Option(min=8, help="LoRA rank.")] = 16,
    rate: Annotated[float, typer.Option(min=0, help="Live requests per second beside a run; 0 sends none.")] = 20.0,
    fluency: Annotated[
        bool, typer.Option("--fluency/--no-fluency", help="Reward what the untuned model finds probable, too.")
    ] = True,
    staleness: Annotated[
        str, typer.Option(help="Steps that rollouts are behind, separated by commas, such as 0,1,4,8.")
    ] = "",
    correction: Annotated[
        str, typer.Option(help="Importance corrections of these runs, separated by commas.")
    ] = "token_truncate,none",
    staleness_steps: Annotated[int, typer.Option(min=1, help="Steps of each of these runs.")] = 24,
    against: Annotated[
        str | None, typer.Option(help="`trl`: the same with TRL's GRPOTrainer, without traffic.")
    ] = None,
    trl_seeds: Annotated[str, typer.Option(help="TRL: seeds separated by commas.")] = "0",
    trl_microbatch: Annotated[int, typer.Option(min=1, help="TRL: sequences per forward pass.")] = 32,
    vllm_memory: Annotated[float, typer.Option(min=0.01, max=1, help="TRL: vLLM's share of the GPU.")] = 0.3,
    vllm_arguments: Annotated[str, typer.Option(metavar="JSON", help="TRL: more arguments of vLLM's LLM.")] = "{}",
    seed: Annotated[int, typer.Option(min=0, help="Of the prompts.")] = 0,
    budget: Annotated[
        float | None, typer.Option(min=1, help="Seconds; runs are stopped and left out so that it ends in time.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where JSON, charts, Markdown and logs go.")] = Path("bench"),
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="A key of the node's configuration; repeat for more."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two languages, two steps: sees that it works.")] = False,
) -> None:
    """Tune a real model on prompts in many languages, and examine it on others before and after.

    Every run starts from the untuned model, beside live requests. The reward is language fidelity, repetition, length
    and fluency under the untuned model; an exam also asks the gate's own language detector.
    """
    from service.bench.learn import bench_learn
    from service.bench.learning.prompts import LANGUAGES
    from service.bench.learning.settings import LearnOptions

    if against not in (None, "trl"):
        raise InvalidInput("--against", f"must be trl, got {against}")
    chosen = tuple(_words(languages)) if languages is not None else LANGUAGES
    settings = tuple(setting or ())
    chosen_seeds, lags = _numbers("--seeds", seeds), _numbers("--staleness", staleness)
    if not chosen_seeds:
        raise InvalidInput("--seeds", "must be at least one number, got none")
    if quick:
        chosen, train_prompts, held_out_prompts, exam_replies = ("en", "de"), 16, 8, 1
        chosen_seeds, steps, staleness_steps = chosen_seeds[:1], 2, 2
        prompts_per_step, group_size, max_tokens, rank = 2, 2, 16, 8
        rate, trl_microbatch = min(rate, 0.25), 4
        vllm_memory, vllm_arguments = 0.1, '{"enforce_eager": true, "max_num_seqs": 8}'
        settings = (*_QUICK_SETTINGS, *settings)
    options = LearnOptions(
        out=out,
        languages=chosen,
        num_train=train_prompts,
        num_held_out=held_out_prompts,
        exam_replies=exam_replies,
        seeds=chosen_seeds,
        num_steps=steps,
        prompts_per_step=prompts_per_step,
        group_size=group_size,
        max_tokens=max_tokens,
        learning_rate=learning_rate,
        rank=rank,
        rate=rate,
        fluency=fluency,
        staleness=lags,
        corrections=_corrections(correction),
        staleness_steps=staleness_steps,
        against_trl=against == "trl",
        trl_seeds=_numbers("--trl-seeds", trl_seeds),
        trl_microbatch=_divisor(trl_microbatch, prompts_per_step * group_size),
        vllm_memory=vllm_memory,
        vllm_arguments=vllm_arguments,
        prompt_seed=seed,
        budget_s=budget,
        overrides=settings,
        model=Path(models.resolve(model, progress=typer.echo)).resolve(),  # last: it may fetch one
    )
    try:
        bench_learn(options, console=Console())
    except KeyboardInterrupt:
        typer.echo("Stopped; nothing is left running.", err=True)
        raise typer.Exit(_INTERRUPTED) from None


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _numbers(option: str, text: str) -> tuple[int, ...]:
    words = _words(text)
    if not all(word.isdecimal() for word in words):
        raise InvalidInput(option, f"must be whole numbers of 0 or more separated by commas, got {text}")
    return tuple(map(int, words))


def _corrections(text: str) -> tuple[ImportanceCorrection, ...]:
    known: tuple[ImportanceCorrection, ...] = get_args(ImportanceCorrection)
    chosen = _words(text)
    if not set(chosen) <= set(known):
        raise InvalidInput("--correction", f"must be of {', '.join(known)}, got {text}")
    return tuple(name for name in known if name in chosen)


def _divisor(microbatch: int, num_sequences: int) -> int:
    if num_sequences % microbatch:
        raise InvalidInput("--trl-microbatch", f"must divide the {num_sequences} replies of a step, got {microbatch}")
    return microbatch
