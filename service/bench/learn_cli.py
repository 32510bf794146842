"""The command `coloq bench learn`, for service.cli_bench to register."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer
from rich.console import Console

from agent.errors import InvalidInput
from service import models
from service.bench.cli_options import Setting, TrlMicrobatch, VllmArguments, VllmMemory, divisor, interruptible, words
from trainer.objective_settings import ImportanceCorrection

if TYPE_CHECKING:
    from service.bench.learning.settings import LearnOptions

_DEFAULT_MODEL = "smollm2-135m-instruct"
_QUICK_SETTINGS = ("engine.max_num_seqs=16", "engine.live_reserve=2", "tuning.adapter.rank=8")

_Model = Annotated[str, typer.Option(metavar="NAME_OR_DIR", help="An embedded model's name, or a folder.")]
_Languages = Annotated[str | None, typer.Option(help="Codes separated by commas; all sixteen without it.")]
_TrainPrompts = Annotated[int, typer.Option(min=1, help="Prompts in the journal, all languages together.")]
_HeldOutPrompts = Annotated[int, typer.Option(min=1, help="Prompts of an exam.")]
_ExamReplies = Annotated[int, typer.Option(min=1, help="Replies to each prompt of an exam.")]
_Seeds = Annotated[str, typer.Option(help="Runs on the node: seeds separated by commas.")]
_Steps = Annotated[int, typer.Option(min=1, help="Optimizer steps of a run.")]
_PromptsPerStep = Annotated[int, typer.Option(min=1, help="Prompts of a step.")]
_GroupSize = Annotated[int, typer.Option(min=2, help="Replies to each prompt.")]
_MaxTokens = Annotated[int, typer.Option(min=1, help="Longest reply, in tokens.")]
_LearningRate = Annotated[float, typer.Option(help="AdamW's learning rate.")]
_Rank = Annotated[int, typer.Option(min=8, help="LoRA rank.")]
_Rate = Annotated[float, typer.Option(min=0, help="Live requests per second beside a run; 0 sends none.")]
_Fluency = Annotated[
    bool, typer.Option("--fluency/--no-fluency", help="Reward what the untuned model finds probable, too.")
]
_Staleness = Annotated[str, typer.Option(help="Steps that rollouts are behind, separated by commas, such as 0,1,4,8.")]
_Correction = Annotated[str, typer.Option(help="Importance corrections of these runs, separated by commas.")]
_StalenessSteps = Annotated[int, typer.Option(min=1, help="Steps of each of these runs.")]
_Against = Annotated[str | None, typer.Option(help="`trl`: the same with TRL's GRPOTrainer, without traffic.")]
_TrlSeeds = Annotated[str, typer.Option(help="TRL: seeds separated by commas.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of the prompts.")]
_Budget = Annotated[
    float | None, typer.Option(min=1, help="Seconds; runs are stopped and left out so that it ends in time.")
]
_Out = Annotated[Path, typer.Option(metavar="DIR", help="Where JSON, charts, Markdown and logs go.")]
_Quick = Annotated[bool, typer.Option("--quick", help="Two languages, two steps: sees that it works.")]


def learn_command(
    model: _Model = _DEFAULT_MODEL,
    languages: _Languages = None,
    train_prompts: _TrainPrompts = 640,
    held_out_prompts: _HeldOutPrompts = 128,
    exam_replies: _ExamReplies = 2,
    seeds: _Seeds = "0,1,2",
    steps: _Steps = 60,
    prompts_per_step: _PromptsPerStep = 8,
    group_size: _GroupSize = 8,
    max_tokens: _MaxTokens = 64,
    learning_rate: _LearningRate = 2e-4,
    rank: _Rank = 16,
    rate: _Rate = 20.0,
    fluency: _Fluency = True,
    staleness: _Staleness = "",
    correction: _Correction = "token_truncate,none",
    staleness_steps: _StalenessSteps = 24,
    against: _Against = None,
    trl_seeds: _TrlSeeds = "0",
    trl_microbatch: TrlMicrobatch = 32,
    vllm_memory: VllmMemory = 0.3,
    vllm_arguments: VllmArguments = "{}",
    seed: _Seed = 0,
    budget: _Budget = None,
    out: _Out = Path("bench"),
    setting: Setting = None,
    quick: _Quick = False,
) -> None:
    """Tune a real model on prompts in many languages, and examine it on others before and after.

    Every run starts from the untuned model, beside live requests. The reward is language fidelity, repetition, length
    and fluency under the untuned model, less what faults cost; an exam also asks the gate's own language detector.
    """
    from service.bench.learn import bench_learn
    from service.bench.learning.prompts import LANGUAGES
    from service.bench.learning.settings import LearnOptions

    if against not in (None, "trl"):
        raise InvalidInput("--against", f"must be trl, got {against}")
    chosen = words(languages) if languages is not None else LANGUAGES
    chosen_seeds, lags = _numbers("--seeds", seeds), _numbers("--staleness", staleness)
    if not chosen_seeds:
        raise InvalidInput("--seeds", "must be at least one number, got none")
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
        trl_microbatch=divisor(trl_microbatch, prompts_per_step * group_size),
        vllm_memory=vllm_memory,
        vllm_arguments=vllm_arguments,
        prompt_seed=seed,
        budget_s=budget,
        overrides=tuple(setting or ()),
        model=Path(models.resolve(model, progress=typer.echo)).resolve(),  # last: it may fetch one
    )
    with interruptible():
        bench_learn(_quickly(options) if quick else options, console=Console())


def _quickly(options: "LearnOptions") -> "LearnOptions":
    return replace(
        options,
        languages=("en", "de"),
        num_train=16,
        num_held_out=8,
        exam_replies=1,
        seeds=options.seeds[:1],
        num_steps=2,
        staleness_steps=2,
        prompts_per_step=2,
        group_size=2,
        max_tokens=16,
        rank=8,
        rate=min(options.rate, 0.25),
        trl_microbatch=4,
        vllm_memory=0.1,
        vllm_arguments='{"enforce_eager": true, "max_num_seqs": 8}',
        overrides=(*_QUICK_SETTINGS, *options.overrides),
    )


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = words(text)
    if not all(word.isdecimal() for word in parts):
        raise InvalidInput(option, f"must be whole numbers of 0 or more separated by commas, got {text}")
    return tuple(map(int, parts))


def _corrections(text: str) -> tuple[ImportanceCorrection, ...]:
    known: tuple[ImportanceCorrection, ...] = get_args(ImportanceCorrection)
    chosen = words(text)
    if not set(chosen) <= set(known):
        raise InvalidInput("--correction", f"must be of {', '.join(known)}, got {text}")
    return tuple(name for name in known if name in chosen)
