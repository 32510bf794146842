"""The policy being trained, one GRPO step at a time: a LoRA adapter on frozen weights, or the weights themselves.

    cut the batch into micro-batches
    if needed:     each: wait for a turn ─► forward on a lane: log-probabilities at the step's start, of the base model
    each update:   each: wait for a turn ─► forward, loss, backward on a lane
                   ─► norm, clip, AdamW on fp32 masters ─► the adapter's weights

Knows nothing of engines, processes or rewards: it is given a Hugging Face model and batches.
"""

import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import PreTrainedModel

from agent.errors import PublicationFailed, TrainerFailed
from trainer.arena import Arena
from trainer.batch import TrainingBatch
from trainer.cutting import Cut, cut_up
from trainer.flight import Interlude, fly
from trainer.graphs import Execution
from trainer.lanes import Lanes, open_lanes
from trainer.loss import token_shares
from trainer.microbatch import Microbatch, Shape, blank_microbatch
from trainer.objective import Scorer, output_head
from trainer.pacer import Pacer
from trainer.ports import LearnerSettings, StepResult, suiting_microbatch_tokens
from trainer.programs import Programs, make_programs
from trainer.rehearsal import rehearsal_batch
from trainer.tally import Tally, Update, step_result
from trainer.teacher_forced import reply_logprobs
from trainer.weights import AdapterWeights, FullWeights, TrainedWeights, copy_into
from trainer.yielding import Wait

_PROBE_CHUNK_TOKENS = 1024


class Learner:
    """One policy on one model. Not thread-safe: one thread drives it."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        base_model: str,
        lanes: Lanes | None = None,
        pacer: Pacer | None = None,
        interlude: Interlude | None = None,
        wait: Wait | None = None,
    ) -> None:
        """Without ``lanes`` and ``pacer`` the model's device is taken as it is and every turn is granted.

        ``interlude`` is given the time between two micro-batches. ``wait`` lets the engine's steps go first; None where
        nothing else runs on the device.
        """
        self._model = model
        self._base_model = base_model
        self._lanes = lanes or open_lanes(model.device)
        self._pacer = pacer or Pacer(self._lanes.sizes, self._lanes.reason)
        self._interlude = interlude
        self._wait = wait
        self._run: _Run | None = None
        self._weights: TrainedWeights | None = None
        self._programs: dict[Hashable, Programs] = {}
        self._tally = Tally(model.device)
        self._arena = Arena() if model.device.type == "cuda" else None
        self._suiting_tokens = suiting_microbatch_tokens(model.num_parameters(), on_gpu=model.device.type == "cuda")

    @property
    def model(self) -> PreTrainedModel:
        """The model, with the adapter's layers in place once a run has begun."""
        return self._model

    @property
    def weights(self) -> TrainedWeights:
        """What the current run trains. Raises TrainerFailed when no run has begun."""
        return self._current_run().weights

    def prepare(self, settings: LearnerSettings, *, max_length: int, reply_tokens: int, temperature: float) -> None:
        """Allocate what runs of these settings need, and on CUDA capture their graphs on every lane and rehearse.

        For the time before the engine takes requests. Runs of other settings are possible, without graphs.

        Args:
            max_length: longest sequence, in tokens.
            reply_tokens: longest reply.

        Raises:
            TrainerFailed: a target module does not exist.
            torch.cuda.OutOfMemoryError: the device is too small; nothing is kept.
        """
        self._weights_for(settings, None)
        programs = self._programs_for(settings, temperature)
        if self._model.device.type == "cuda":
            shapes = self._how_to_cut(settings).shapes(max_length, reply_tokens)
            blanks = [_with_room(blank_microbatch(shape, self._model.device), settings) for shape in shapes]
            self.synchronize()  # lanes do not wait for one another, and no token may be read before it is zero
            failure = programs.capture(blanks, self._lanes)
            if failure is not None:
                self._release()
                raise failure
            self.rehearse(settings, max_length=max_length, temperature=temperature)

    def rehearse(self, settings: LearnerSettings, *, max_length: int, temperature: float) -> None:
        """Take a step that teaches nothing (trainer.rehearsal), and leave no run.

        Raises:
            TrainerFailed: the step cannot be computed.
        """
        self.begin(settings, None)
        try:
            self.step(rehearsal_batch(settings, max_length=max_length, temperature=temperature))
            if settings.method == "adapter":
                self.snapshot()
        finally:
            self._run = None
            self._weights_for(settings, None)
            self.synchronize()

    @property
    def yields(self) -> bool:
        """Whether the present run's large kernels wait for the engine's steps."""
        run = self._run
        return run is not None and run.settings.yield_to_engine

    def begin(self, settings: LearnerSettings, parent: Mapping[str, Tensor] | None) -> None:
        """Start a run with a fresh optimizer: an adapter with ``parent``'s weights or a new one (B = 0), or the model's
        own weights as they are.

        Raises:
            TrainerFailed: ``parent`` is of another shape, or a target module does not exist.
        """
        self._run = None
        self._run = _Run(settings, self._weights_for(settings, parent))

    def step(self, batch: TrainingBatch) -> StepResult:
        """The settings' number of optimizer updates over the whole batch, in micro-batches.

        Raises:
            TrainerFailed: no run has begun, or loss, gradient or update is not finite; the weights are those of the
                update before, in a step of one update unchanged.
        """
        run = self._current_run()
        started = time.perf_counter()
        programs = self._programs_for(run.settings, batch.temperature)
        with self._lanes.whole.active():
            microbatches = list(self._cut(batch, run.settings, programs.update.shapes))
        if programs.scoring is not None:
            self._fly(programs.scoring, microbatches, trains=False)
        updates = [self._update(run, programs.update, microbatches) for _ in range(run.settings.updates_per_batch)]
        return step_result(updates, batch, run.settings.objective, duration_s=time.perf_counter() - started)

    def logprobs(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of each reply token at temperature 1, as the newest step has it, live or not."""
        settings = None if self._run is None else self._run.settings
        newest = nullcontext() if self._run is None else self._run.weights.newest()
        with torch.no_grad(), self._lanes.whole.active():
            head = output_head(self._model)
            if self._run is not None:
                head = self._run.weights.newest_of(head)
            with newest:
                return reply_logprobs(
                    self._model,
                    head,
                    prompts,
                    replies,
                    chunk_tokens=settings.logit_chunk_tokens if settings else _PROBE_CHUNK_TOKENS,
                    batch_tokens=self._microbatch_tokens(settings),
                )

    def snapshot(self) -> Mapping[str, Tensor]:
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

    def on_stream(self) -> AbstractContextManager[Any]:
        """Make the stream current that ``synchronize`` waits for and micro-batches come after: whatever else the thread
        that drives the learner puts on the device belongs there."""
        return self._lanes.whole.active()

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
        """Bytes for training on the model's device: what graphs compute with, trained weights of its own, optimizer,
        gradient sums."""
        graphs = {} if self._arena is None else {"activations": self._arena.size_bytes}
        return graphs | ({} if self._weights is None else self._weights.memory())

    def _come_after_current_stream(self) -> None:
        if self._lanes.whole.stream is not None:
            self._lanes.whole.stream.wait_event(torch.cuda.current_stream().record_event())

    def _release(self) -> None:
        """Give all memory for training back."""
        self._run = None
        self._programs.clear()
        if self._weights is not None:
            self._weights.release()
            self._weights = None
        if self._arena is not None:
            self.synchronize()
            self._arena.release()
            torch.cuda.empty_cache()

    def _weights_for(self, settings: LearnerSettings, parent: Mapping[str, Tensor] | None) -> TrainedWeights:
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

    def _cut(self, batch: TrainingBatch, settings: LearnerSettings, shapes: Sequence[Shape]) -> Iterator[Microbatch]:
        shares = token_shares(
            settings.objective.loss,
            batch.mask.sum(1).tolist(),
            num_sequences=batch.num_sequences + batch.num_masked,
            reply_tokens=settings.reply_tokens,
        )
        how = self._how_to_cut(settings)
        for microbatch in cut_up(batch, shares, how, shapes=shapes, device=self._model.device):
            yield _with_room(microbatch, settings)

    def _how_to_cut(self, settings: LearnerSettings) -> Cut:
        return Cut(self._microbatch_tokens(settings), settings.siblings)

    def _microbatch_tokens(self, settings: LearnerSettings | None) -> int:
        """As configured, or what suits the model and the device."""
        return (settings.microbatch_tokens if settings else None) or self._suiting_tokens

    def _update(self, run: "_Run", execution: Execution, microbatches: Sequence[Microbatch]) -> Update:
        """One optimizer update. Raises TrainerFailed when anything of it is not finite; nothing is changed then."""
        optimizer = run.weights.optimizer
        with self._lanes.whole.active():
            optimizer.discard()  # an update that raised midway has left its gradient
            self._tally.clear()
        self._fly(execution, microbatches, trains=True)
        with self._lanes.whole.active():
            update = Update(self._tally.read(), float(optimizer.gradient_norm()))
            update.check_finite()
            optimizer.step(max_grad_norm=run.settings.max_grad_norm, gradient_norm=update.grad_norm)
            run.weights.after_step()
        return update

    def _fly(self, execution: Execution, microbatches: Sequence[Microbatch], *, trains: bool) -> None:
        fly(execution, microbatches, self._lanes, self._pacer, trains=trains, interlude=self._interlude)

    def _programs_for(self, settings: LearnerSettings, temperature: float) -> Programs:
        """Those for each set of constants, which graphs hold."""
        yields = settings.yield_to_engine
        key = (settings.objective, settings.scores_proximal, settings.logit_chunk_tokens, temperature, yields)
        if key not in self._programs:
            scorer = Scorer(self._model, temperature, settings.logit_chunk_tokens)
            self._programs[key] = make_programs(
                scorer, settings, self._tally, self._current_weights().as_base, self._arena, self._wait
            )
        return self._programs[key]

    def _current_weights(self) -> TrainedWeights:
        if self._weights is None:
            raise TrainerFailed("a run must begin before its weights are there")
        return self._weights

    def _current_run(self) -> "_Run":
        if self._run is None:
            raise TrainerFailed("a run must begin before it can step")
        return self._run


@dataclass(frozen=True, slots=True)
class _Run:
    settings: LearnerSettings
    weights: TrainedWeights


def _with_room(microbatch: Microbatch, settings: LearnerSettings) -> Microbatch:
    """With room for what runs of these settings score before their updates."""
    return microbatch.with_room(proximal=settings.scores_proximal, reference=settings.scores_base)
