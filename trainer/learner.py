"""The policy being trained, one GRPO step at a time: a LoRA adapter on frozen weights, or the weights themselves.

    cut the batch into micro-batches ─► each: wait for a turn ─► forward, loss, backward on a lane
                                     ─► norm, clip, AdamW on fp32 masters ─► the adapter's weights

Knows nothing of engines, processes or rewards: it is given a Hugging Face model and batches.
"""

import math
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor, nn
from transformers import PreTrainedModel

from agent.errors import PublicationFailed, TrainerFailed
from trainer.batch import TrainingBatch
from trainer.graphs import Eager, Execution, Graphed, Shape
from trainer.head import token_logprobs
from trainer.lanes import Lane, Lanes, open_lanes
from trainer.loss import effective_sample_size, grpo_loss
from trainer.microbatch import Microbatch, blank_microbatch, cut, graph_shapes
from trainer.pacer import Pacer
from trainer.ports import CPU_MICROBATCH_TOKENS, GPU_MICROBATCH_TOKENS, LearnerSettings, StepResult
from trainer.weights import AdapterWeights, FullWeights, TrainedWeights, copy_into

_PROBE_CHUNK_TOKENS = 1024


class Learner:
    """One policy on one model. Not thread-safe: one thread drives it."""

    def __init__(
        self, model: PreTrainedModel, *, base_model: str, lanes: Lanes | None = None, pacer: Pacer | None = None
    ) -> None:
        """Without ``lanes`` and ``pacer`` the model's device is taken as it is and every turn is granted."""
        self._model = model
        self._base_model = base_model
        self._lanes = lanes or open_lanes(model.device)
        self._pacer = pacer or Pacer(self._lanes.sizes, self._lanes.reason)
        self._run: _Run | None = None
        self._weights: TrainedWeights | None = None
        self._executions: dict[tuple[float, ...], Execution] = {}
        self._tally = torch.zeros(len(_TALLY), dtype=torch.float64, device=model.device)

    @property
    def model(self) -> PreTrainedModel:
        """The model, with the adapter's layers in place once a run has begun."""
        return self._model

    @property
    def weights(self) -> TrainedWeights:
        """What the current run trains. Raises TrainerFailed when no run has begun."""
        return self._current_run().weights

    def prepare(self, settings: LearnerSettings, *, max_length: int, reply_tokens: int, temperature: float) -> None:
        """Allocate what runs of these settings need, and on CUDA capture their graphs on every lane.

        For the time before the engine takes requests. Runs of other settings are possible, without graphs.

        Args:
            max_length: longest sequence, in tokens.
            reply_tokens: longest reply.

        Raises:
            TrainerFailed: a target module does not exist.
            torch.cuda.OutOfMemoryError: the device is too small; nothing is kept.
        """
        self._weights_for(settings, None)
        execution = self._execution(settings, temperature)
        if isinstance(execution, Graphed):
            shapes = graph_shapes(max_length, reply_tokens, tokens=_microbatch_tokens(settings, self._model))
            try:
                self._capture(execution, shapes)
            except BaseException:
                self._release()
                raise

    def begin(self, settings: LearnerSettings, parent: dict[str, Tensor] | None) -> None:
        """Start a run with a fresh optimizer: an adapter with ``parent``'s weights or a new one (B = 0), or the model's
        own weights as they are.

        Raises:
            TrainerFailed: ``parent`` is of another shape, or a target module does not exist.
        """
        self._run = None
        self._run = _Run(settings, self._weights_for(settings, parent))

    def step(self, batch: TrainingBatch) -> StepResult:
        """One optimizer step over the whole batch, in micro-batches.

        Raises:
            TrainerFailed: no run has begun, or loss, gradient or update is not finite; the weights are unchanged.
        """
        run = self._current_run()
        started = time.perf_counter()
        with self._lanes.whole.active():
            run.weights.optimizer.discard()  # a step that raised midway has left its gradient
            self._tally.zero_()
            execution = self._execution(run.settings, batch.temperature)
            tokens = _microbatch_tokens(run.settings, self._model)
            microbatches = list(cut(batch, tokens=tokens, shapes=execution.shapes, device=self._model.device))
        self._accumulate(execution, microbatches)
        with self._lanes.whole.active():
            tally = dict(zip(_TALLY, self._tally.tolist(), strict=True))
            norm = float(run.weights.optimizer.gradient_norm())
            if not all(map(math.isfinite, (tally["loss"], norm, tally["mismatch"]))):
                raise TrainerFailed(
                    "loss, gradient norm and mismatch must be finite, got "
                    f"{tally['loss']}, {norm} and {tally['mismatch']}"
                )
            run.weights.optimizer.step(max_grad_norm=run.settings.max_grad_norm, gradient_norm=norm)
            run.weights.after_step()
        return StepResult(
            loss=tally["loss"],
            grad_norm=norm,
            clip_fraction=tally["clipped"] / batch.num_tokens,
            effective_sample_size=effective_sample_size(tally["weights"], tally["squared_weights"], batch.num_tokens),
            mismatch_mean=tally["mismatch"] / batch.num_tokens,
            duration_s=time.perf_counter() - started,
        )

    def logprobs(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each reply token at temperature 1, under the weights as they are now."""
        chunk = self._run.settings.logit_chunk_tokens if self._run else _PROBE_CHUNK_TOKENS
        values: list[list[float]] = []
        with torch.no_grad(), self._lanes.whole.active():
            for prompt, reply in zip(prompts, replies, strict=True):
                ids = torch.tensor([[*prompt, *reply]], device=self._model.device)
                hidden = self._hidden(ids)[0, len(prompt) - 1 : -1]
                row = token_logprobs(hidden, self._head(), ids[0, len(prompt) :], temperature=1.0, chunk_tokens=chunk)
                values.append(row.tolist())
        return values

    def snapshot(self) -> dict[str, Tensor]:
        """A copy of the trained weights, by their names on disk."""
        with self._lanes.whole.active():
            return self._current_run().weights.snapshot()

    def export(self) -> dict[str, Tensor]:
        """The optimizer's state, from which ``resume`` goes on; not a copy. Raises TrainerFailed: no run has begun."""
        with self._lanes.whole.active():
            state = self._current_run().weights.optimizer.export()
        self.synchronize()  # its reader copies on another stream
        return state

    def resume(self, settings: LearnerSettings, state: Iterable[tuple[str, Tensor]]) -> None:
        """Go on with a run of these settings where ``export`` was called.

        Raises:
            TrainerFailed: the state is of other settings or of another model; no run has begun then.
        """
        self._run = None
        weights = self._weights_for(settings, None)
        with self._lanes.whole.active():
            weights.restore(state)
        self._run = _Run(settings, weights)

    def model_config(self) -> dict[str, Any]:
        """The model's ``config.json``."""
        return self._model.config.to_dict()

    def base_folder(self) -> Path:
        """Where the base model's files are.

        Raises:
            PublicationFailed: it is a Hugging Face id whose files are not in the local cache.
        """
        folder = Path(self._base_model)
        if folder.is_dir():
            return folder
        try:
            return Path(snapshot_download(self._base_model, local_files_only=True))
        except (OSError, ValueError) as error:
            raise PublicationFailed(f"the files of {self._base_model} are not in the local cache: {error}") from error

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

    def synchronize(self) -> None:
        """Return when everything that the learner has started is done."""
        if self._lanes.whole.stream is not None:
            self._lanes.whole.stream.synchronize()

    def publish_live(self) -> None:
        """Method ``full``: make the live weights equal to the masters of the last step, on the current stream.

        The next step comes after it. May be called from another thread while no command runs.

        Raises:
            TrainerFailed: the run trains an adapter, or has taken no step.
        """
        weights = self._current_run().weights
        if not isinstance(weights, FullWeights):
            raise TrainerFailed("only method full changes the live weights")
        weights.publish()
        self._come_after_current_stream()

    def restore_live(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy weights into the live ones, on the current stream; see publish_live.

        Raises:
            TrainerFailed: names or shapes differ from the model's; nothing is changed.
        """
        copy_into(self._model, tensors)
        self._come_after_current_stream()

    def live_weights(self) -> dict[str, Tensor]:
        """The live weights themselves, by Hugging Face's names; not a copy."""
        return {name: parameter.detach() for name, parameter in self._model.named_parameters()}

    def memory(self) -> dict[str, int]:
        """Bytes for training on the model's device: trained weights of its own, optimizer, gradient sums."""
        return {} if self._weights is None else self._weights.memory()

    def _come_after_current_stream(self) -> None:
        if self._lanes.whole.stream is not None:
            self._lanes.whole.stream.wait_event(torch.cuda.current_stream().record_event())

    def _capture(self, execution: Graphed, shapes: Sequence[Shape]) -> None:
        """Every shape on every lane, the largest first: the smaller ones find room in its memory."""
        inputs = [(lane, blank_microbatch(shape, self._model.device)) for lane in self._lanes.lanes for shape in shapes]
        for lane, microbatch in inputs:
            execution.warm_up(microbatch, lane)
        for lane, microbatch in inputs:
            execution.capture(microbatch, lane)
        self.synchronize()

    def _release(self) -> None:
        """Give all memory for training back."""
        self._run = None
        self._executions.clear()
        if self._weights is not None:
            self._weights.release()
            self._weights = None
        if self._model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _weights_for(self, settings: LearnerSettings, parent: dict[str, Tensor] | None) -> TrainedWeights:
        """Those that are there when they fit, begun anew; otherwise others in their place, without graphs."""
        with self._lanes.whole.active():
            if self._weights is not None and self._weights.fits(settings):
                self._weights.restart(settings, parent)
                return self._weights
            self._release()
            full = settings.method == "full"
            self._weights = (
                FullWeights(self._model, settings) if full else AdapterWeights(self._model, settings, parent)
            )
            return self._weights

    def _accumulate(self, execution: Execution, microbatches: Sequence[Microbatch]) -> None:
        """Run every micro-batch in its turn. The next one is queued behind a running one, unless turns are rationed."""
        flights: deque[_Flight] = deque()
        previous = _end_of(self._lanes.whole.stream)
        for microbatch in microbatches:
            lane = self._lanes.of_size(self._pacer.turn())
            self._pacer.begins()
            flights.append(_Flight.launch(execution, microbatch, lane, after=previous))
            previous = flights[-1].end
            while len(flights) > (0 if self._pacer.rationed else 1):
                flights.popleft().land(self._pacer)
        while flights:
            flights.popleft().land(self._pacer)

    def _execution(self, settings: LearnerSettings, temperature: float) -> Execution:
        """One for each set of constants, which a graph holds."""
        constants = (
            temperature,
            settings.clip_low,
            settings.clip_high,
            settings.importance_cap,
            settings.logit_chunk_tokens,
        )
        if constants not in self._executions:
            program = _Objective(self._model, settings, self._tally, temperature)
            on_cuda = self._model.device.type == "cuda"
            self._executions[constants] = Graphed(program) if on_cuda else Eager(program)
        return self._executions[constants]

    def _hidden(self, ids: Tensor) -> Tensor:
        return last_hidden(self._model, ids)

    def _head(self) -> Tensor:
        return output_head(self._model)

    def _current_run(self) -> "_Run":
        if self._run is None:
            raise TrainerFailed("a run must begin before it can step")
        return self._run


_TALLY = ("loss", "clipped", "mismatch", "weights", "squared_weights")
"""What the micro-batches of a step add up, in the order of the tally's elements."""


@dataclass(frozen=True, slots=True)
class _Run:
    settings: LearnerSettings
    weights: TrainedWeights


@dataclass(frozen=True, slots=True)
class _Objective:
    """Forward, GRPO loss and backward of one micro-batch; no value is read back."""

    model: PreTrainedModel
    settings: LearnerSettings
    tally: Tensor
    temperature: float

    def __call__(self, microbatch: Microbatch) -> None:
        hidden = last_hidden(self.model, microbatch.token_ids)
        predicting = hidden.flatten(0, 1)[microbatch.predictors.flatten()]
        logprobs = token_logprobs(
            predicting,
            output_head(self.model),
            microbatch.targets.flatten(),
            temperature=self.temperature,
            chunk_tokens=self.settings.logit_chunk_tokens,
        ).view(microbatch.targets.shape)
        loss = grpo_loss(
            logprobs,
            logprobs.detach(),
            microbatch.behaviour_logprobs,
            microbatch.advantages,
            microbatch.mask,
            microbatch.weights,
            clip_low=self.settings.clip_low,
            clip_high=self.settings.clip_high,
            importance_cap=self.settings.importance_cap,
        )
        loss.value.backward()
        weights = loss.weights.double()
        sums = (loss.value.detach(), loss.clipped, loss.mismatch, weights.sum(), weights.square().sum())
        self.tally.add_(torch.stack([value.double() for value in sums]))


@dataclass(frozen=True, slots=True)
class _Flight:
    """A micro-batch that has been started."""

    lane: Lane
    num_tokens: int
    events: tuple[torch.cuda.Event, torch.cuda.Event] | None
    """Its begin and end on the lane's stream; None on a CPU, where it has ended already."""
    duration_s: float = 0.0

    @classmethod
    def launch(
        cls, execution: Execution, microbatch: Microbatch, lane: Lane, *, after: torch.cuda.Event | None
    ) -> "_Flight":
        if lane.stream is None:
            started = time.perf_counter()
            execution.run(microbatch, lane)
            return cls(lane, microbatch.num_positions, None, time.perf_counter() - started)
        begin, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        if after is not None:
            lane.stream.wait_event(after)
        begin.record(lane.stream)
        execution.run(microbatch, lane)
        end.record(lane.stream)
        return cls(lane, microbatch.num_positions, (begin, end))

    @property
    def end(self) -> torch.cuda.Event | None:
        return None if self.events is None else self.events[1]

    def land(self, pacer: Pacer) -> None:
        """Wait for its end without holding Python's lock, and report it."""
        duration_s = self.duration_s
        if self.events is not None:
            self.events[1].synchronize()
            duration_s = self.events[0].elapsed_time(self.events[1]) / 1000
        pacer.ran(duration_s, num_sms=self.lane.num_sms, num_tokens=self.num_tokens)


def _end_of(stream: torch.cuda.Stream | None) -> torch.cuda.Event | None:
    """An event after everything that was put on the stream so far."""
    return None if stream is None else stream.record_event()


def last_hidden(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """[B, T, H] of the last layer. Right padding needs no mask under causal attention."""
    body: nn.Module = getattr(model, model.base_model_prefix)
    hidden: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
    return hidden


def output_head(model: PreTrainedModel) -> Tensor:
    """[V, H]."""
    head: Tensor = model.get_output_embeddings().weight
    return head


def _microbatch_tokens(settings: LearnerSettings, model: PreTrainedModel) -> int:
    """Where the configuration leaves it open: what keeps a GPU busy, and what a CPU's memory bears."""
    return settings.microbatch_tokens or (
        GPU_MICROBATCH_TOKENS if model.device.type == "cuda" else CPU_MICROBATCH_TOKENS
    )
