"""The policy being trained: a LoRA adapter on a frozen model, and one GRPO step at a time.

    B  sequences        T  positions        N  sampled tokens        H  hidden size

Knows nothing of engines, processes or rewards: it is given a Hugging Face model and batches.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from agent.errors import TrainerFailed
from trainer.batch import BUCKET_TOKENS, TrainingBatch
from trainer.loss import effective_sample_size, grpo_loss, token_logprobs
from trainer.optimizer import MasterAdamW
from trainer.ports import LearnerSettings, StepResult


class Learner:
    """One adapter on one model. Not thread-safe: one thread drives it."""

    def __init__(self, model: PreTrainedModel, *, base_model: str) -> None:
        self._base: PreTrainedModel = model
        self._base_model = base_model
        self._peft: PeftModel | None = None
        self._run: _Run | None = None

    @property
    def model(self) -> PreTrainedModel:
        """The model, with the adapter injected once a run has begun."""
        return self._base

    def begin(self, settings: LearnerSettings, parent: dict[str, Tensor] | None) -> None:
        """Start a run: an adapter with ``parent``'s weights or a fresh one (B = 0), and a fresh optimizer.

        Raises:
            TrainerFailed: ``parent`` is of another shape, or a target module does not exist.
        """
        self._end_run()
        self._check_targets(settings.target_modules)
        config = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,  # type: ignore[arg-type]  # annotated int; only divided by the rank
            target_modules=list(settings.target_modules),
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )
        try:
            # On the meta device, since initialising there draws nothing from the process's global random state.
            self._peft = get_peft_model(self._base, config, autocast_adapter_dtype=False, low_cpu_mem_usage=True)
        except ValueError as error:
            raise TrainerFailed(f"tuning.adapter.target_modules does not fit this model: {error}") from error
        parameters = _allocate(self._peft, self._base)
        try:
            _fill(parameters, parent, settings.seed)
        except TrainerFailed:
            self._end_run()
            raise
        optimizer = MasterAdamW(
            list(parameters.values()), learning_rate=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self._run = _Run(settings, parameters, optimizer)

    def step(self, batch: TrainingBatch) -> StepResult:
        """One optimizer step over the whole batch, in micro-batches.

        Raises:
            TrainerFailed: no run has begun, or loss, gradient or update is not finite; the weights are unchanged.
        """
        run = self._current_run()
        started = time.perf_counter()
        run.optimizer.discard()  # a step that raised midway has left its gradient
        tally = _Tally()
        for start in range(0, batch.num_sequences, run.settings.microbatch_size):
            self._accumulate(run, batch, slice(start, start + run.settings.microbatch_size), tally)
        norm = run.optimizer.gradient_norm()
        if not all(map(math.isfinite, (tally.loss, norm, tally.mismatch))):
            raise TrainerFailed(
                f"loss, gradient norm and mismatch must be finite, got {tally.loss}, {norm} and {tally.mismatch}"
            )
        run.optimizer.step(max_grad_norm=run.settings.max_grad_norm, gradient_norm=norm)
        weights = torch.cat(tally.weights)
        return StepResult(
            loss=tally.loss,
            grad_norm=norm,
            clip_fraction=tally.clipped / batch.num_tokens,
            effective_sample_size=effective_sample_size(weights, torch.ones_like(weights, dtype=torch.bool)),
            mismatch_mean=tally.mismatch / batch.num_tokens,
            duration_s=time.perf_counter() - started,
        )

    def logprobs(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each reply token at temperature 1, under the adapter as it is now."""
        chunk = self._run.settings.logit_chunk_tokens if self._run else 1024
        values: list[list[float]] = []
        with torch.no_grad():
            for prompt, reply in zip(prompts, replies, strict=True):
                ids = torch.tensor([[*prompt, *reply]], device=self._base.device)
                hidden = self._hidden(ids)[0, len(prompt) - 1 : -1]
                row = token_logprobs(hidden, self._head(), ids[0, len(prompt) :], temperature=1.0, chunk_tokens=chunk)
                values.append(row.tolist())
        return values

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the adapter's weights under PEFT's names."""
        return {name: parameter.detach().clone() for name, parameter in self._current_run().parameters.items()}

    def adapter_config(self) -> dict[str, Any]:
        """PEFT's ``adapter_config.json`` of the current run."""
        settings = self._current_run().settings
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self._base_model,
            "r": settings.rank,
            "lora_alpha": settings.alpha,
            "target_modules": sorted(settings.target_modules),
            "lora_dropout": 0.0,
            "bias": "none",
            "inference_mode": True,
        }

    def _end_run(self) -> None:
        """Take the adapter off the model, if there is one."""
        self._run = None
        if self._peft is not None:
            self._base, self._peft = self._peft.unload(), None

    def _check_targets(self, target_modules: Sequence[str]) -> None:
        """PEFT passes over a name that matches nothing as long as another one matches."""
        names = [f".{name}" for name, _ in self._base.named_modules()]
        missing = [target for target in target_modules if not any(name.endswith(f".{target}") for name in names)]
        if missing:
            raise TrainerFailed(f"tuning.adapter.target_modules must name modules of this model, got {missing}")

    def _accumulate(self, run: "_Run", batch: TrainingBatch, rows: slice, tally: "_Tally") -> None:
        """Forward and backward over some rows; their gradient counts by their share of the batch."""
        device = self._base.device
        length = _used_length(batch.mask[rows])
        ids = torch.from_numpy(batch.token_ids[rows, :length]).to(device)
        mask = torch.from_numpy(batch.mask[rows, 1:length]).to(device)
        behaviour = torch.from_numpy(batch.behaviour_logprobs[rows, 1:length]).to(device)
        advantages = torch.from_numpy(batch.advantages[rows]).to(device)
        sampled = token_logprobs(
            self._hidden(ids)[:, :-1][mask],
            self._head(),
            ids[:, 1:][mask],
            temperature=batch.temperature,
            chunk_tokens=run.settings.logit_chunk_tokens,
        )
        logprobs = torch.zeros_like(behaviour).masked_scatter(mask, sampled)
        loss = grpo_loss(
            logprobs,
            logprobs.detach(),
            behaviour,
            advantages,
            mask,
            clip_low=run.settings.clip_low,
            clip_high=run.settings.clip_high,
            importance_cap=run.settings.importance_cap,
        )
        value = loss.value * (len(ids) / batch.num_sequences)
        value.backward()
        run.optimizer.collect()
        tally.add(float(value.detach()), float(loss.clipped), float(loss.mismatch), loss.weights[mask].cpu())

    def _hidden(self, ids: Tensor) -> Tensor:
        """[B, T, H] last hidden states. Right padding needs no mask under causal attention."""
        body: nn.Module = getattr(self._base, self._base.base_model_prefix)
        hidden: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
        return hidden

    def _head(self) -> Tensor:
        head: Tensor = self._base.get_output_embeddings().weight
        return head

    def _current_run(self) -> "_Run":
        if self._run is None:
            raise TrainerFailed("a run must begin before it can step")
        return self._run


@dataclass(frozen=True, slots=True)
class _Run:
    settings: LearnerSettings
    parameters: dict[str, nn.Parameter]
    optimizer: MasterAdamW


class _Tally:
    """Sums over the micro-batches of a step."""

    def __init__(self) -> None:
        self.loss, self.clipped, self.mismatch = 0.0, 0.0, 0.0
        self.weights: list[Tensor] = []

    def add(self, loss: float, clipped: float, mismatch: float, weights: Tensor) -> None:
        self.loss += loss
        self.clipped += clipped
        self.mismatch += mismatch
        self.weights.append(weights)


def _used_length(mask: npt.NDArray[np.bool_]) -> int:
    """Positions up to the last sampled token, rounded up to the bucket."""
    last = int(np.flatnonzero(mask.any(axis=0))[-1]) + 1
    return min(-(-last // BUCKET_TOKENS) * BUCKET_TOKENS, int(mask.shape[1]))


def _tensor_name(parameter_name: str) -> str:
    """PEFT's name of an adapter tensor on disk: without the adapter's own name."""
    return parameter_name.replace(".default.", ".")


def _allocate(peft: PeftModel, base: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The adapter's parameters by PEFT's name on disk, uninitialised, on the model's device and in its dtype."""
    parameters: dict[str, nn.Parameter] = {}
    for name, blank in [(n, p) for n, p in peft.named_parameters() if p.requires_grad]:
        parameter = nn.Parameter(torch.empty(blank.shape, dtype=base.dtype, device=base.device))
        path, _, leaf = name.rpartition(".")
        setattr(peft.get_submodule(path), leaf, parameter)
        parameters[_tensor_name(name)] = parameter
    return parameters


def _fill(parameters: dict[str, nn.Parameter], parent: dict[str, Tensor] | None, seed: int) -> None:
    """Raises TrainerFailed when ``parent`` does not fit."""
    if parent is None:
        _initialise(parameters, seed)
    else:
        _copy_into(parameters, parent)


def _initialise(parameters: dict[str, nn.Parameter], seed: int) -> None:
    """LoRA's start (arXiv 2106.09685, section 4.1): A random, B zero, so the first policy equals its parent.

    A's generator is its own: the process's global random state belongs to the engine.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in parameters.items():
            if ".lora_B." in name:
                parameter.zero_()
                continue
            values = torch.empty(parameter.shape)
            nn.init.kaiming_uniform_(values, a=math.sqrt(5), generator=generator)
            parameter.copy_(values)


def _copy_into(parameters: dict[str, nn.Parameter], tensors: dict[str, Tensor]) -> None:
    misfits = sorted(
        name
        for name in parameters.keys() | tensors.keys()
        if name not in parameters or name not in tensors or parameters[name].shape != tensors[name].shape
    )
    if misfits:
        raise TrainerFailed(
            f"the parent policy's adapter must have the configured rank and target modules; {len(misfits)} tensors "
            f"differ, the first is {misfits[0]}"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
