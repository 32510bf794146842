"""The peer's program: TRL's GRPOTrainer on prompts of one length, timed step by step.

    options ─► model, prompts, reward ─► GRPOTrainer.train() ─► result file, written again after every step

    one step:  write weights into vLLM (sync) ─► sample (generation) ─► reward (score) ─► forward … optimizer (train)

Set up as service.bench.peers.trl_setup says. Whatever happens, the result file is written, with the error if there was
one; the status is then 1.
"""

import argparse
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from service.bench.peers.prompt_text import texts_of_length
from service.bench.peers.recorder import Recorder
from service.bench.peers.trl import TrlResult, TrlSettings, write_result
from service.bench.peers.trl_setup import (
    ENVIRONMENT,
    device_name,
    grpo_config,
    installed_versions,
    lora_config,
    prepare_vllm,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def main(words: Sequence[str] | None = None) -> int:
    """Run the comparison; the process's exit status."""
    began_s = time.perf_counter()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    settings, out = parse_arguments(sys.argv[1:] if words is None else words)
    result = TrlResult(settings=asdict(settings), versions=installed_versions())
    write_result(out, replace(result, error="the program ended before its first step"))
    early = replace(result, error="the program ended before its last step")
    recorder = Recorder(save=lambda steps: write_result(out, replace(early, steps=steps)))
    error = None
    try:
        train(settings, recorder, out.parent)
    except BaseException as failure:  # noqa: BLE001 - whatever ends the run goes into the result
        traceback.print_exc()
        error = f"{type(failure).__name__}: {failure}"
    result = replace(
        result,
        device=device_name(),
        start_s=recorder.first_began_s and recorder.first_began_s - began_s,
        steps=tuple(recorder.steps),
        peak_memory_gib=peak_memory_gib(),
        error=error,
    )
    write_result(out, result)
    sys.stdout.write(out.read_text(encoding="utf-8"))
    return 0 if error is None else 1


def parse_arguments(words: Sequence[str]) -> tuple[TrlSettings, Path]:
    """The settings and the result file. An unknown or wrong option ends the program with argparse's message."""
    parser = argparse.ArgumentParser(prog="python -m service.bench.peers.trl_grpo", description="TRL as a peer.")
    hints = get_type_hints(TrlSettings)
    for item in fields(TrlSettings):
        option, kind = f"--{item.name.replace('_', '-')}", hints[item.name]
        if kind is bool:
            parser.add_argument(option, action="store_true", default=item.default)
        elif get_origin(kind) is not None:
            parser.add_argument(option, choices=get_args(kind), default=item.default)
        else:
            parser.add_argument(option, type=kind, default=item.default, required=item.default is MISSING)
    parser.add_argument("--out", type=Path, required=True, help="Result file (JSON).")
    given = vars(parser.parse_args(list(words)))
    out: Path = given.pop("out")
    try:
        return TrlSettings(**given), out
    except ValueError as error:
        parser.error(str(error))


def train(settings: TrlSettings, recorder: Recorder, folder: Path) -> None:
    """Build the trainer and take the steps. ``folder`` is TRL's output folder, in which nothing is saved."""
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from service.bench.peers.reward import PanelReward

    on_gpu = torch.cuda.is_available()
    if on_gpu:
        recorder.synchronize = torch.cuda.synchronize
    if settings.generation == "vllm":
        prepare_vllm(json.loads(settings.vllm_arguments), on_gpu=on_gpu)
    tokenizer = AutoTokenizer.from_pretrained(settings.model, padding_side="left")
    # Without gradient checkpointing, whose recomputation a node does not pay either.
    model = AutoModelForCausalLM.from_pretrained(
        settings.model, dtype=getattr(torch, settings.dtype), attn_implementation="sdpa"
    )
    trainer_class = timed_trainer(recorder)
    trainer = trainer_class(
        model=model,
        reward_funcs=[PanelReward()],
        args=grpo_config(settings, folder, on_gpu=on_gpu),
        train_dataset=Dataset.from_dict({"prompt": prompts(settings, tokenizer)}),
        processing_class=tokenizer,
        callbacks=[step_callback(recorder)],
        peft_config=lora_config(settings) if settings.method == "adapter" else None,
    )
    time_weight_sync(trainer, recorder)
    trainer.train()


def prompts(settings: TrlSettings, tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """A text of the asked length for every prompt of every step: none is sampled twice, so no prefix is cached."""

    def encode(text: str) -> Sequence[int]:
        ids: list[int] = tokenizer(text)["input_ids"]
        return ids

    return texts_of_length(
        encode, settings.prompts_per_step * settings.steps, settings.prompt_tokens, seed=settings.seed
    )


def timed_trainer(recorder: Recorder) -> type[Any]:
    """GRPOTrainer that tells the recorder when it generates and scores."""
    from trl.trainer.grpo_trainer import GRPOTrainer

    class TimedTrainer(GRPOTrainer):
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            with recorder.phase("generation"):
                sampled = super()._generate_single_turn(*args, **kwargs)  # type: ignore[no-untyped-call]
            recorder.sampled([len(ids) for ids in completion_ids(sampled)])
            return sampled

        def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
            with recorder.phase("score"):
                return super()._calculate_rewards(*args, **kwargs)

    return TimedTrainer


def completion_ids(sampled: tuple[Any, ...]) -> Sequence[Sequence[int]]:
    """The replies' token ids in what `_generate_single_turn` returns: first, or second after the prompts' ids.

    TRL 1.16 returns (replies, logprobs), earlier versions (prompts, replies, logprobs, …).
    """
    replies: Sequence[Sequence[int]] = sampled[0] if len(sampled) == 2 else sampled[1]
    return replies


def time_weight_sync(trainer: Any, recorder: Recorder) -> None:
    """Tell the recorder when the trained weights are written into vLLM."""
    owner = getattr(trainer, "vllm_generation", None)
    if owner is None:
        return
    sync = owner.sync_weights

    def timed(*args: Any, **kwargs: Any) -> None:
        with recorder.phase("sync"):
            sync(*args, **kwargs)
            recorder.synchronize()

    owner.sync_weights = timed


def step_callback(recorder: Recorder) -> Any:
    """Tells the recorder when steps begin and end."""
    from transformers import TrainerCallback

    class StepCallback(TrainerCallback):
        def on_train_begin(self, *args: object, **kwargs: object) -> None:
            recorder.begin()

        def on_step_end(self, *args: object, **kwargs: object) -> None:
            recorder.end()

    return StepCallback()


def peak_memory_gib() -> float | None:
    """Most memory that torch held on the GPU; None on a CPU."""
    torch = importlib.import_module("torch")
    return float(torch.cuda.max_memory_reserved() / 2**30) if torch.cuda.is_available() else None


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Without Python's own teardown: that of an engine and NCCL in the trainer's process may abort or hang.
    os._exit(status)
