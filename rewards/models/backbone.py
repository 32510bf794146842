"""A Hugging Face sequence-classification model with one output, and the adapters of languages on it.

    backbone ─┬─ its own head           an off-the-shelf scorer judges every language with it
              ├─ adapter de_v3 + head   LoRA weights and a head of its own (PEFT)
              └─ adapter pl_v1 + head

Rows are padded on the right, where causal attention does not look and an encoder's mask hides; the logit is read at the
last token that is no padding, as transformers reads it. So a row scores the same alone and in a batch, up to rounding.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModelForSequenceClassification, TaskType
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from agent.errors import ModelError
from rewards.models.manifest import WEIGHTS, RewardManifest, verified_manifest

_NAMED_MISFITS = 3


@dataclass(frozen=True, slots=True)
class Classifier:
    """A loaded model."""

    model: PreTrainedModel
    has_head: bool
    """True when its head came with it; false when it was made anew and says nothing before it is trained."""


def load_classifier(
    source: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Classifier:
    """Load a folder or Hugging Face id as a scorer with one output; from safetensors, or not at all.

    Args:
        tokenizer: the model's own; both know the same padding token afterwards (name_padding).
        dtype: the checkpoint's own when None.

    Raises:
        ModelError: there is no such model, it has no safetensors weights, or a head with more than one output.
    """
    try:
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=1,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype or "auto",
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ModelError(f"the reward model {source} cannot be loaded as a scorer with one output: {reason}") from error
    name_padding(model, tokenizer)
    return Classifier(model.to(device).eval().requires_grad_(False), has_head=not info["missing_keys"])


def name_padding(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Make model and tokenizer agree on the padding token, by which the model finds a row's last token.

    The tokenizer's goes first, then the model's, then the end token. TRL's RewardTrainer knows the first and the last
    of these: call this before it, and a model is trained and asked at the same token.
    """
    text = model.config.get_text_config()
    if tokenizer.pad_token_id is None:
        known = text.pad_token_id if text.pad_token_id is not None else tokenizer.eos_token_id
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(0 if known is None else known)
    text.pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id


class Backbone:
    """Scores rows of token ids. Not thread-safe: one thread drives it."""

    def __init__(self, classifier: Classifier) -> None:
        self._model = classifier.model
        self._has_head = classifier.has_head
        self._adapted: PeftModelForSequenceClassification | None = None
        self._adapters: dict[str, str] = {}
        """Name to PEFT's own, which is never given twice."""
        self._numbers = itertools.count(1)

    @property
    def device(self) -> torch.device:
        return self._model.device

    @property
    def has_head(self) -> bool:
        """True when it can judge without an adapter."""
        return self._has_head

    @property
    def adapters(self) -> frozenset[str]:
        return frozenset(self._adapters)

    def tensors(self) -> list[Tensor]:
        """All weights, adapters included."""
        return list(self._model.parameters())

    def load_adapter(self, name: str, folder: Path) -> RewardManifest:
        """Read a written version, check its digests and keep it under a name of its own.

        Raises:
            ModelError: a file is missing or damaged, or it is no adapter of this backbone; nothing is kept then.
        """
        if name in self._adapters:
            raise ModelError(f"a reward adapter is loaded once under its name, and {name} is there")
        manifest = verified_manifest(folder)
        try:
            config, tensors = _lora_config(folder), load_file(folder / WEIGHTS)
        except (OSError, ValueError, TypeError, SafetensorError) as error:
            raise ModelError(f"the reward adapter {name} cannot be read: {error}") from error
        self._add(name, config, tensors)
        return manifest

    def drop_adapter(self, name: str) -> None:
        """Forget an adapter; one that is not there is left alone."""
        self._adapters.pop(name, None)
        self._delete_unused()

    @torch.no_grad()
    def scores(self, rows: Sequence[Sequence[int]], adapter: str | None) -> list[float]:
        """The raw score of each row, in one batch; not finite where the model's is not.

        Args:
            rows: token ids, none empty.
            adapter: whose weights and head; None takes the backbone's own head.

        Raises:
            ModelError: there is no such adapter, or no head of its own.
        """
        inputs = self._padded(rows)
        if adapter is None:
            if not self._has_head:
                raise ModelError("the backbone has no trained head of its own: an adapter must be named")
            return self._without_adapter(inputs)
        if self._adapted is None or adapter not in self._adapters:
            raise ModelError(f"there is no reward adapter {adapter}, only {sorted(self._adapters)}")
        self._adapted.set_adapter(self._adapters[adapter])
        return _column(self._adapted(**inputs).logits)

    def _without_adapter(self, inputs: dict[str, Tensor]) -> list[float]:
        if self._adapted is None:
            return _column(self._model(**inputs).logits)
        with self._adapted.disable_adapter():
            return _column(self._adapted(**inputs).logits)

    def _padded(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """Input ids and mask [rows, longest row]."""
        longest = max(map(len, rows))
        padding = self._model.config.get_text_config().pad_token_id
        ids = [[*row, *[padding] * (longest - len(row))] for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return {
            "input_ids": torch.tensor(ids, device=self.device),
            "attention_mask": torch.tensor(mask, device=self.device),
        }

    def _add(self, name: str, config: LoraConfig, tensors: dict[str, Tensor]) -> None:
        """Adapters compute in the backbone's own precision (peft would hold them in fp32 beside a 16-bit head)."""
        slot = f"adapter_{next(self._numbers)}"
        try:
            if self._adapted is None:
                self._adapted = PeftModelForSequenceClassification(
                    self._model, config, adapter_name=slot, autocast_adapter_dtype=False
                )
            else:
                self._adapted.add_adapter(slot, config, autocast_adapter_dtype=False)
            self._fill(self._adapted, slot, tensors)
            self._adapters[name] = slot
        except (ValueError, RuntimeError, TypeError) as error:
            raise ModelError(f"the reward adapter {name} does not fit its backbone: {error}") from error
        finally:
            self._delete_unused()
        self._adapted.eval().requires_grad_(False)

    @staticmethod
    def _fill(adapted: PeftModelForSequenceClassification, slot: str, tensors: dict[str, Tensor]) -> None:
        """Raises ValueError unless the tensors are exactly the adapter's."""
        wanted = get_peft_model_state_dict(adapted, adapter_name=slot)
        misfits = sorted(wanted.keys() ^ tensors.keys()) or [
            key for key, tensor in sorted(tensors.items()) if tensor.shape != wanted[key].shape
        ]
        if misfits:
            raise ValueError(
                f"{', '.join(misfits[:_NAMED_MISFITS])} of {len(misfits)} tensors are its or the file's alone"
            )
        set_peft_model_state_dict(adapted, tensors, adapter_name=slot)

    def _delete_unused(self) -> None:
        """Give the weights of adapters that have no name back; PEFT cannot live without its last one."""
        if self._adapted is None:
            return
        slots = list(self._adapted.peft_config)
        kept = [slot for slot in slots if slot in self._adapters.values()] or slots[-1:]
        self._adapted.set_adapter(kept[0])
        for slot in slots:
            if slot not in kept:
                self._adapted.delete_adapter(slot)


def batches(lengths: Sequence[int], *, batch_tokens: int) -> list[list[int]]:
    """Cut rows into batches of at most ``batch_tokens`` positions, padding included; indexes into ``lengths``.

    Rows of like length go together, the longest first. A row that is longer than the bound goes alone.
    """
    cut: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if cut and (len(cut[-1]) + 1) * lengths[cut[-1][0]] <= batch_tokens:
            cut[-1].append(index)
        else:
            cut.append([index])
    return cut


def _lora_config(folder: Path) -> LoraConfig:
    """Raises ValueError for another kind of adapter."""
    config = PeftConfig.from_pretrained(str(folder))
    if not isinstance(config, LoraConfig) or config.task_type != TaskType.SEQ_CLS:
        raise ValueError(f"must be LoRA for sequence classification, got {config.peft_type} for {config.task_type}")
    config.inference_mode = True
    return config


def _column(logits: Tensor) -> list[float]:
    """[rows, 1] as a list."""
    return [float(value) for value in logits[:, 0].float().tolist()]
