"""Fits a LoRA adapter and a score head to preference pairs with TRL's RewardTrainer, on the CPU.

The loss is Bradley and Terry's, -log sigmoid(r_chosen - r_rejected), plus 0.01 (r_chosen + r_rejected)^2, which keeps
rewards centred (Eisenstein et al. 2023, arXiv 2312.09244, equation 2).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig, PeftModel, TaskType
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.reward_config import RewardConfig
from trl.trainer.reward_trainer import RewardTrainer

from rewards.models.manifest import ADAPTER_CONFIG
from rewards.training.progress import Progress
from rewards.training.settings import TrainingSettings

CENTERING = 1e-2
"""TRL's recommended `center_rewards_coefficient`."""
_UNORDERED = ("modules_to_save", "target_modules")


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """Token ids of a prompt with its chosen reply, and of the same prompt with the rejected one."""

    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedPair],
    settings: TrainingSettings,
    scratch: Path,
    on_step: Callable[[Progress], None],
) -> PeftModel:
    """Train an adapter and a head on a backbone with one label, whose own weights stay as they are.

    The backbone's head, if it was made anew, must have been seeded by the caller.
    """
    trainer = RewardTrainer(
        model=model,
        args=_arguments(settings, scratch),
        train_dataset=Dataset.from_list(
            [{"chosen_ids": list(pair.chosen), "rejected_ids": list(pair.rejected)} for pair in pairs]
        ),
        processing_class=tokenizer,
        peft_config=_adapter(settings.rank),
        callbacks=[_Steps(on_step)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trained = trainer.model
    assert isinstance(trained, PeftModel)
    return trained.eval()


def save_adapter(model: PeftModel, folder: Path) -> None:
    """Write adapter and head as PEFT does; equal weights make equal files.

    The backbone is not named: PEFT would look for it on the hub when the adapter is loaded. The manifest names it.
    """
    model.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / ADAPTER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = None
    for name in _UNORDERED:
        config[name] = sorted(set(config[name]))
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _arguments(settings: TrainingSettings, scratch: Path) -> RewardConfig:
    return RewardConfig(
        output_dir=str(scratch),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size,
        center_rewards_coefficient=CENTERING,
        max_length=None,  # too long pairs are left out, and counted, before they come here
        seed=settings.seed,
        data_seed=settings.seed,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=True,  # the node needs the memory more than the training needs the time
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _adapter(rank: int) -> LoraConfig:
    """PEFT adds the score head to what is trained and saved, as TaskType.SEQ_CLS asks."""
    return LoraConfig(task_type=TaskType.SEQ_CLS, r=rank, lora_alpha=2 * rank, target_modules="all-linear")


class _Steps(TrainerCallback):
    """Tells of every optimizer step."""

    def __init__(self, on_step: Callable[[Progress], None]) -> None:
        self._on_step = on_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """See TrainerCallback.on_log; the last one sums up and has no loss of its own."""
        if logs is not None and "loss" in logs:
            self._on_step(Progress(state.global_step, state.max_steps, float(logs["loss"])))
