"""Training that never waits: synthetic batches of one shape, the next step in the learner's hands before one ends.

Token ids are random, behaviour log-probabilities those of the uniform distribution (which is what random weights
sample), advantages +1 and -1 in turn. Cost depends on the shape alone.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from agent.errors import ColoqError
from service.bench.control import BatchShape, TrainedStep, TrainOrder, TrainView
from service.bench.versions import Versions
from trainer.batch import TrainingBatch
from trainer.ports import LearnerSettings, StepResult, TrainerPort

_FIRST_TOKEN_ID = 3
"""After the special tokens of service.bench.tokenizer."""


@dataclass(frozen=True, slots=True)
class BenchLearner:
    """One learner, and what a bench needs to drive it."""

    trainer: TrainerPort
    settings: LearnerSettings
    versions: Versions
    next_version: Callable[[], Awaitable[int]]
    vocab_size: int


def synthetic_batch(shape: BatchShape, vocab_size: int, *, seed: int) -> TrainingBatch:
    """A batch of random sequences without padding."""
    draw = np.random.default_rng(seed)
    size = (shape.batch_size, shape.length)
    mask = np.zeros(size, np.bool_)
    mask[:, -shape.reply_tokens :] = True
    return TrainingBatch(
        token_ids=draw.integers(_FIRST_TOKEN_ID, vocab_size, size=size, dtype=np.int64),
        mask=mask,
        behaviour_logprobs=np.where(mask, -math.log(vocab_size), 0.0).astype(np.float32),
        advantages=np.where(np.arange(shape.batch_size) % 2, -1.0, 1.0).astype(np.float32),
        temperature=1.0,
        oldest_version=0,
    )


class ContinuousTraining:
    """One run at a time on one learner."""

    def __init__(self, learner: BenchLearner) -> None:
        self._learner = learner
        self._steps: list[TrainedStep] = []
        self._failure: str | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def view(self) -> TrainView:
        running = self._task is not None and not self._task.done()
        return TrainView(running=running, steps=self._steps, failure=self._failure)

    def start(self, order: TrainOrder) -> None:
        """Train in the background. Raises RuntimeError while training runs."""
        if self.view.running:
            raise RuntimeError("one training at a time, and one is running")
        self._steps, self._failure = [], None
        self._stopping.clear()
        self._task = asyncio.create_task(self._run(order), name="bench-training")

    async def stop(self) -> TrainView:
        """Finish the steps in hand."""
        self._stopping.set()
        return await self.finished()

    async def finished(self) -> TrainView:
        """Wait for the last step."""
        if self._task is not None:
            await self._task
        return self.view

    async def _run(self, order: TrainOrder) -> None:
        """The boundary that a failed training does not cross: the reason is in the view."""
        versions = self._learner.versions
        try:
            await versions.begin(self._learner.settings)
            try:
                budget = _Budget(order.num_steps)
                async with asyncio.TaskGroup() as steps:
                    for _ in range(versions.steps_in_hand):
                        steps.create_task(self._step_on(order.batch, budget))
            finally:
                await versions.end()
        except* ColoqError as errors:
            self._failure = str(errors.exceptions[0])

    async def _step_on(self, shape: BatchShape, budget: "_Budget") -> None:
        while not self._stopping.is_set() and (number := budget.take()) is not None:
            version = await self._learner.next_version()
            batch = synthetic_batch(shape, self._learner.vocab_size, seed=number)
            submitted_s = time.monotonic()
            result = await self._learner.trainer.step(batch, version)
            self._steps.append(self._trained(submitted_s, shape, result))
            await self._learner.versions.settle(version)

    def _trained(self, submitted_s: float, shape: BatchShape, result: StepResult) -> TrainedStep:
        previous_s = self._steps[-1].ended_s if self._steps else submitted_s
        return TrainedStep(
            began_s=max(submitted_s, previous_s),
            ended_s=time.monotonic(),
            num_tokens=shape.num_tokens,
            step_s=result.duration_s,
            loss=result.loss,
            grad_norm=result.grad_norm,
        )


class _Budget:
    """Numbers of steps, up to a count or without end."""

    def __init__(self, count: int | None) -> None:
        self._count = count
        self._taken = 0

    def take(self) -> int | None:
        """The next number; None when the count is used up."""
        if self._count is not None and self._taken >= self._count:
            return None
        self._taken += 1
        return self._taken
