"""Runs on the hosted node, one after the other, each from the untuned model: exam, run with traffic beside it, exam.

    activate 0 ─► exam ─► traffic on ─► run (product's routes, or with old rollouts) ─► traffic off ─► exam

A run is told to stop when the budget is nearly used up; what it had published last is examined.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from agent.brief import Brief
from service.bench.control import ControlClient, Nothing
from service.bench.failure import BenchFailed
from service.bench.learning.budget import Budget
from service.bench.learning.exam import Graded
from service.bench.learning.figures import Point
from service.bench.learning.messages import ExamOrder, ExamView, SeedOrder, SeedView, TrailOrder, TrailView
from service.bench.load import LoadPlan, LoadResult, Poisson, PromptRecipe, run_load
from service.bench.node import BenchNode
from service.bench.options import content_of
from service.bench.prompt import WORDS
from service.bench.statistics import LoadSummary, summarise
from service.http.client import AdminClient
from service.http.tuning_schema import RunBody, StepView
from trainer.objective_settings import ImportanceCorrection
from trainer.records import RunState

TRAFFIC_LANGUAGE = "fi"
"""Live requests are in a language that no run draws from: the training prompts stay those of the seed."""
_TRAFFIC_WORDS = 24
_LONGEST_TRAFFIC_S = 3600.0
_TRAFFIC_TIMEOUT_S = 60.0
_POLL_S = 0.2
_SETTLE_S = 1.0
"""Of traffic before a run begins."""


class LearnControl(ControlClient):
    """The control routes of a hosted node, those for learning among them."""

    async def seed(self, order: SeedOrder) -> SeedView:
        """Put prompts into the journal."""
        return await self._call("POST", "/bench/learn/seed", SeedView, order)

    async def examine(self, order: ExamOrder) -> ExamView:
        """Grade replies to held-out prompts."""
        return await self._call("POST", "/bench/learn/exam", ExamView, order)

    async def start_trail(self, order: TrailOrder) -> TrailView:
        """Start a run with old rollouts."""
        await self._call("POST", "/bench/learn/trail/start", Nothing, order)
        return await self.trail()

    async def trail(self) -> TrailView:
        """That run so far; a failure is in it."""
        return await self._call("GET", "/bench/learn/trail", TrailView)

    async def stop_trail(self) -> TrailView:
        """Let it end after its current step."""
        return await self._call("POST", "/bench/learn/trail/stop", TrailView)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What all runs of a bench have in common."""

    languages: tuple[str, ...]
    prompts_per_step: int
    group_size: int
    max_tokens: int
    learning_rate: float
    exam_replies: int
    rate: float
    """Live requests per second; 0 sends none."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One run."""

    seed: int
    num_steps: int
    lag: int | None = None
    """Steps that rollouts are behind, on purpose; None is a run of the product's own."""
    correction: ImportanceCorrection = "token_truncate"

    @property
    def label(self) -> str:
        if self.lag is None:
            return f"seed {self.seed}"
        return f"staleness {self.lag}, {self.correction}, seed {self.seed}"


@dataclass(slots=True)
class RunRow:
    """What one run was and did."""

    system: str
    variant: Variant
    state: str
    reason: str | None
    duration_s: float
    points: list[Point]
    before: list[Graded]
    after: list[Graded]
    """None of them when nothing was published."""
    steps: list[dict[str, Any]] = field(default_factory=list)
    """The node's report of each step."""
    traffic: LoadSummary | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A run as it is polled."""

    steps: Sequence[StepView]
    at_s: Sequence[float]
    final: bool
    state: str
    reason: str | None
    published: int | None


class Watched(Protocol):
    """A run in progress."""

    async def look(self) -> Progress:
        """How it stands."""
        ...

    async def stop(self) -> None:
        """Let it end after its current step."""
        ...


class ProductRun:
    """A tuning run over the admin routes; steps are dated when they are first seen."""

    def __init__(self, admin: AdminClient, run_id: str, began_s: float) -> None:
        self._admin, self._id, self._began_s = admin, run_id, began_s
        self._at_s: list[float] = []

    @classmethod
    async def start(cls, admin: AdminClient, settings: RunSettings, variant: Variant) -> "ProductRun":
        """Start it. Raises NodeRefused."""
        body = RunBody(
            languages=list(settings.languages),
            steps=variant.num_steps,
            group_size=settings.group_size,
            prompts_per_step=settings.prompts_per_step,
            max_tokens=settings.max_tokens,
            learning_rate=settings.learning_rate,
            publish_every=max(1, variant.num_steps // 4),
            gate=False,
            seed=variant.seed,
        )
        began_s = time.monotonic()
        return cls(admin, (await asyncio.to_thread(admin.start, body)).id, began_s)

    async def look(self) -> Progress:
        """See Watched.look."""
        run = await asyncio.to_thread(self._admin.run, self._id)
        self._at_s += [time.monotonic() - self._began_s] * (len(run.steps) - len(self._at_s))
        published = run.published[-1] if run.published else None
        return Progress(run.steps, self._at_s, run.state.final, run.state.value, run.reason, published)

    async def stop(self) -> None:
        """See Watched.stop."""
        await asyncio.to_thread(self._admin.stop, self._id)


class TrailRun:
    """A run with old rollouts over the control routes."""

    def __init__(self, control: LearnControl) -> None:
        self._control = control
        self._told_to_stop = False

    @classmethod
    async def start(cls, control: LearnControl, settings: RunSettings, variant: Variant) -> "TrailRun":
        """Start it. Raises BenchFailed."""
        order = TrailOrder(
            languages=list(settings.languages),
            steps=variant.num_steps,
            prompts_per_step=settings.prompts_per_step,
            group_size=settings.group_size,
            max_tokens=settings.max_tokens,
            learning_rate=settings.learning_rate,
            seed=variant.seed,
            lag=variant.lag or 0,
            correction=variant.correction,
        )
        await control.start_trail(order)
        return cls(control)

    async def look(self) -> Progress:
        """See Watched.look."""
        view = await self._control.trail()
        state = RunState.RUNNING if view.running else self._ended(view.failure)
        return Progress(view.steps, view.at_s, not view.running, state.value, view.failure, view.published)

    async def stop(self) -> None:
        """See Watched.stop."""
        self._told_to_stop = True
        await self._control.stop_trail()

    def _ended(self, failure: str | None) -> RunState:
        if failure is not None:
            return RunState.FAILED
        return RunState.STOPPED if self._told_to_stop else RunState.SUCCEEDED


@dataclass(frozen=True, slots=True)
class NodeRuns:
    """Carries runs out on one hosted node."""

    node: BenchNode
    control: LearnControl
    admin: AdminClient
    settings: RunSettings
    held_out: Sequence[Brief]
    budget: Budget
    baselines: dict[int, list[Graded]] = field(default_factory=dict)
    """The untuned model's exams by seed: the same for every run of a seed."""

    async def run(self, variant: Variant, *, reserve_s: float) -> RunRow:
        """One run with its exams. It is stopped when less than ``reserve_s`` of the budget is left.

        Raises:
            BenchFailed, NodeRefused: the node does not answer.
        """
        await asyncio.to_thread(self.admin.activate, 0)
        if variant.seed not in self.baselines:
            self.baselines[variant.seed] = await self.examine(variant.seed)
        async with self._traffic(variant.seed) as traffic:
            began_s = time.monotonic()
            watched = await self._start(variant)
            progress = await self.finished(watched, reserve_s)
            duration_s = time.monotonic() - began_s
        after = await self.examine(variant.seed) if progress.published is not None else []
        return RunRow(
            system="coloq",
            variant=variant,
            state=progress.state,
            reason=progress.reason,
            duration_s=duration_s,
            points=points_of(progress.steps, progress.at_s, self.settings.group_size),
            before=self.baselines[variant.seed],
            after=after,
            steps=[step.model_dump() for step in progress.steps],
            traffic=traffic.summary(self.settings.max_tokens),
        )

    async def examine(self, seed: int) -> list[Graded]:
        """Grades of the policy that answers now; equal seeds sample with equal seeds."""
        order = ExamOrder(
            briefs=list(self.held_out),
            replies=self.settings.exam_replies,
            max_tokens=self.settings.max_tokens,
            seed=seed * 1_000_003 % 2**31,
        )
        return (await self.control.examine(order)).replies

    async def _start(self, variant: Variant) -> Watched:
        if variant.lag is None:
            return await ProductRun.start(self.admin, self.settings, variant)
        return await TrailRun.start(self.control, self.settings, variant)

    async def finished(self, watched: Watched, reserve_s: float) -> Progress:
        """Wait for a run's end; tell it to stop, once, when less than that is left of the budget."""
        stopped = False
        while not (progress := await watched.look()).final:
            if not stopped and not self.budget.allows(reserve_s):
                stopped = True
                await watched.stop()
            await asyncio.sleep(_POLL_S)
        return progress

    @asynccontextmanager
    async def _traffic(self, seed: int) -> AsyncIterator["Traffic"]:
        """Live requests for the length of the block, if there shall be any."""
        traffic = Traffic()
        if not self.settings.rate:
            yield traffic
            return
        with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
            stop_file = Path(folder) / "stop"
            plan = LoadPlan(
                content_of(self.node),
                Poisson(self.settings.rate),
                PromptRecipe(WORDS, _TRAFFIC_WORDS, seed),
                max_tokens=self.settings.max_tokens,
                temperature=1.0,
                warmup_s=_SETTLE_S,
                duration_s=_LONGEST_TRAFFIC_S,
                seed=seed,
                timeout_s=_TRAFFIC_TIMEOUT_S,
                stop_file=str(stop_file),
                language=TRAFFIC_LANGUAGE,
            )
            sending = asyncio.create_task(run_load(plan), name="bench-traffic")
            await asyncio.sleep(_SETTLE_S)
            try:
                yield traffic
            finally:
                stop_file.touch()
                await asyncio.wait({sending})
            traffic.result = sending.result()


@dataclass(slots=True)
class Traffic:
    """The live requests of one run."""

    result: LoadResult | None = None

    def summary(self, max_tokens: int) -> LoadSummary | None:
        """Their figures; None when there were none."""
        return None if self.result is None else summarise(self.result, max_tokens)


def points_of(steps: Sequence[StepView], at_s: Sequence[float], group_size: int) -> list[Point]:
    """A run's curve."""
    points: list[Point] = []
    num_samples = 0
    for step, seconds in zip(steps, at_s, strict=True):
        num_samples += step.num_sampled_groups * group_size
        if step.reward_mean is None:
            raise BenchFailed(f"the mean reward of step {step.step} must be a finite number")
        parts = {name: value for name, value in step.parts.items() if value is not None}
        points.append(Point(seconds, num_samples, step.reward_mean, parts))
    return points
