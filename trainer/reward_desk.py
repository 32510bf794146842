"""The reward models in the engine process: which are loaded, and whose replies are scored next.

    engine's thread     put(ticket's command) ─► live jobs, other jobs
    learner's thread    between two micro-batches of a step:  every live batch, then one other
                        between two commands:                 the rest of a job

A job's rows are cut into batches by length. A live request's job goes before everything else and does not wait for the
pacer, since a caller waits for it; the pacer hears of its time, so that training is what gives way. Other jobs wait for
a turn as micro-batches do. Knows nothing of engines: the served model comes as a function.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from agent.errors import ModelError
from rewards.models.backbone import Backbone, Classifier, batches, load_classifier
from rewards.models.encoding import RewardEncoder
from trainer import messages
from trainer.lanes import Lanes
from trainer.pacer import Pacer
from trainer.ports import CPU_MICROBATCH_TOKENS, GPU_MICROBATCH_TOKENS

OnAnswer = Callable[[messages.Answer], None]


@dataclass(slots=True)
class _Job:
    command: messages.ScoreReplies
    answer: OnAnswer
    deadline: float | None
    """By the clock of the desk; None when nobody waits."""
    batches: deque[list[int]]
    scores: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Shelved:
    """A loaded backbone."""

    backbone: Backbone
    borrowed: frozenset[int]
    """Addresses of tensors that are the engine's."""

    @property
    def own_tensors(self) -> list[Tensor]:
        return [tensor for tensor in self.backbone.tensors() if tensor.data_ptr() not in self.borrowed]


class RewardDesk:
    """Loads and drops in the learner's thread, and scores there; ``put`` and ``is_due`` are for any thread."""

    def __init__(
        self,
        lanes: Lanes,
        pacer: Pacer,
        device: torch.device,
        *,
        served: Callable[[RewardEncoder], Classifier] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``served`` builds a scorer on the engine's own weights."""
        self._lanes, self._pacer, self._device = lanes, pacer, device
        self._served = served
        self._clock = clock
        self._shelf: dict[str, _Shelved] = {}
        self._lock = threading.Lock()
        self._live: deque[_Job] = deque()
        self._others: deque[_Job] = deque()
        self._num_answered = 0
        self.size_bytes = 0
        """Memory of the engine's device that the reward models hold, without what they share with the engine. Any
        thread may ask: their tensors themselves are the learner's thread's."""

    def open(self, command: messages.OpenBackbone) -> messages.BackboneFacts:
        """Load a backbone, in place of one of the same name.

        Raises:
            ModelError: it cannot be loaded.
            TrainerFailed: the served model cannot be a backbone.
        """
        encoder = RewardEncoder.load(command.source)
        borrowed: frozenset[int] = frozenset()
        if command.shares:
            if self._served is None:
                raise ModelError("there is no served model whose weights could be shared")
            classifier = self._served(encoder)
            borrowed = frozenset(tensor.data_ptr() for tensor in classifier.model.base_model.parameters())
        else:
            device = torch.device("cpu") if command.device == "cpu" else self._device
            classifier = load_classifier(command.source, encoder.tokenizer, device=device)
        shelved = _Shelved(Backbone(classifier), borrowed)
        self._shelf[command.backbone] = shelved
        self._measure()
        return messages.BackboneFacts(
            has_head=classifier.has_head,
            max_positions=getattr(classifier.model.config.get_text_config(), "max_position_embeddings", None),
            size_bytes=sum(tensor.nbytes for tensor in shelved.own_tensors),
        )

    def load(self, command: messages.LoadReward) -> None:
        """Load a language's version. Raises ModelError."""
        self._backbone(command.backbone).load_adapter(command.adapter, Path(command.folder))
        self._measure()

    def drop(self, command: messages.DropReward) -> None:
        """Forget a language's version. Jobs that still want it fail."""
        self._backbone(command.backbone).drop_adapter(command.adapter)
        self._measure()

    def _measure(self) -> None:
        tensors = [tensor for shelved in self._shelf.values() for tensor in shelved.own_tensors]
        self.size_bytes = sum(tensor.nbytes for tensor in tensors if tensor.device.type == self._device.type)

    def put(self, command: messages.ScoreReplies, answer: OnAnswer) -> None:
        """Take a job; ``answer`` is called in the learner's thread."""
        deadline = None if command.within_s is None else self._clock() + command.within_s
        suiting = GPU_MICROBATCH_TOKENS if self._device.type == "cuda" else CPU_MICROBATCH_TOKENS
        cut = batches([len(row) for row in command.rows], batch_tokens=command.batch_tokens or suiting)
        job = _Job(command, answer, deadline, deque(cut), [0.0] * len(command.rows))
        with self._lock:
            (self._others if deadline is None else self._live).append(job)

    def is_due(self) -> bool:
        """True while a live request waits."""
        return bool(self._live)

    def run(self) -> None:
        """Between two micro-batches: every batch that a live request waits for, then one of the others."""
        while self._live:
            self._advance(self._live)
        if self._others:
            self._advance(self._others)

    def finish_one(self) -> None:
        """Between two commands: carry on until some job is answered; at once when there is none."""
        answered = self._num_answered
        while (self._live or self._others) and self._num_answered == answered:
            self._advance(self._live or self._others)

    def _advance(self, jobs: deque[_Job]) -> None:
        """One batch of the first job, and its answer after the last one."""
        job = jobs[0]
        try:
            if job.deadline is not None and self._clock() > job.deadline:
                self._answer(jobs, messages.Failed("the reply would come too late", late=True))
                return
            if job.batches and self._scored(job, job.batches[0]):
                job.batches.popleft()
            if not job.batches:
                self._answer(jobs, messages.Done(scores=job.scores))
        except ModelError as error:
            self._answer(jobs, messages.Failed(str(error)))
        except Exception as error:  # noqa: BLE001 - a job must not end the training step that it interrupts
            self._answer(jobs, messages.Failed(f"{type(error).__name__}: {error}"))

    def _answer(self, jobs: deque[_Job], answer: messages.Answer) -> None:
        with self._lock:
            job = jobs.popleft()
        self._num_answered += 1
        job.answer(answer)

    def _scored(self, job: _Job, batch: list[int]) -> bool:
        """Score one batch in its turn; False when a live request came first."""
        backbone = self._backbone(job.command.backbone)
        live = job.deadline is not None
        num_sms = self._pacer.turn(lambda: live or self.is_due())
        if not live and self.is_due():
            return False
        started = time.perf_counter()
        self._pacer.begins()
        try:
            with self._lanes.of_size(num_sms).active():
                scores = backbone.scores([job.command.rows[index] for index in batch], job.command.adapter)
        finally:
            self._pacer.ran(time.perf_counter() - started, num_sms=num_sms, num_tokens=0)
        for index, score in zip(batch, scores, strict=True):
            job.scores[index] = score
        return True

    def _backbone(self, name: str) -> Backbone:
        if name not in self._shelf:
            raise ModelError(f"there is no reward backbone {name}, only {sorted(self._shelf)}")
        return self._shelf[name].backbone
