"""The hosted node's side of `coloq bench learn`: prompts for the journal, exams, runs with deliberately old rollouts.

Runs without that are the product's own, over its admin routes. Everything here is made when it is first asked for.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from fastapi import APIRouter, HTTPException

from agent.brief import Brief
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode
from agent.errors import ColoqError
from agent.language import primary_code
from agent.ports import PromptEncoder
from agent.prompt import PromptLibrary
from agent.verdict import LanguageVerdict, Verdict
from rewards.panel import Panel
from rewards.score import Sample
from rewards.second_opinion import second_opinion
from service.bench.control import Nothing
from service.bench.learning.exam import Examiner, Graded
from service.bench.learning.fluency import MODEL_VARIABLE
from service.bench.learning.messages import ExamOrder, ExamView, SeedOrder, SeedView, TrailOrder, TrailView
from service.bench.learning.trail import Trail, TrailingPromotion, TrailingSampler
from service.http.tuning_schema import StepView
from trainer.adapters import AdapterSlots
from trainer.config import GateConfig
from trainer.evaluation import Evaluator
from trainer.loop import RunHooks, TuningLoop
from trainer.plan import RunPlan
from trainer.promotion import Promotion, Standing
from trainer.records import Evaluation, RunRequest, StepReport
from trainer.rollout import RolloutSampler

if TYPE_CHECKING:
    from service.node import Node  # imports vLLM, which reads the environment

_GRADED_AT_ONCE = 32


def name_base_model(folder: str) -> None:
    """Tell judges that are made without arguments where the untuned model is; before the node makes its panel."""
    os.environ[MODEL_VARIABLE] = folder


class Prompts:
    """Briefs as the node's own episodes."""

    def __init__(self, encoder: PromptEncoder, library: PromptLibrary) -> None:
        self._encoder, self._library = encoder, library

    def episode(self, brief: Brief, name: str) -> Episode:
        """An episode that holds the brief's prompt and an empty reply, which nothing can be learnt from."""
        prompt = self._library.render(brief)
        reply = Completion(
            text="",
            prompt_token_ids=self._encoder.encode(prompt.system, prompt.user),
            token_ids=(),
            logprobs=(),
            sampling=Sampling(max_tokens=1),
            finish_reason=FinishReason.STOP,
            versions=VersionSpan(0, 0),
        )
        verdict = LanguageVerdict(primary_code(brief.language), Verdict.UNDETERMINED, None, ())
        return Episode(name, datetime.now(UTC), brief, prompt.ref, (reply,), served=0, verdict=verdict)


@dataclass(slots=True)
class _TrailRun:
    """The newest run with old rollouts."""

    began_s: float
    stop: asyncio.Event
    steps: list[StepReport] = field(default_factory=list)
    at_s: list[float] = field(default_factory=list)
    published: int | None = None
    failure: str | None = None
    task: "asyncio.Task[None] | None" = None

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    @property
    def view(self) -> TrailView:
        return TrailView(
            running=self.running,
            steps=[StepView.model_validate(step) for step in self.steps],
            at_s=self.at_s,
            published=self.published,
            failure=self.failure,
        )

    async def on_step(self, report: StepReport) -> None:
        self.steps.append(report)
        self.at_s.append(time.monotonic() - self.began_s)

    async def on_published(self, version: int) -> None:
        self.published = version


class LearnHost:
    """One node as the bench drives it."""

    def __init__(self, node: "Node", model: str) -> None:
        self._node, self._model = node, model
        self._run: _TrailRun | None = None

    @property
    def running(self) -> bool:
        """Whether a run with old rollouts is under way."""
        return self._run is not None and self._run.running

    async def seed(self, order: SeedOrder) -> SeedView:
        """See SeedOrder.

        The prompts are handed out and settled once: after that a run's seed alone decides which ones it draws.
        """
        episodes = await asyncio.to_thread(self._episodes, order.briefs, "seed")
        journal = self._node.journal
        for episode in episodes:
            await journal.append(episode)
        await journal.settle(await journal.claim([], len(episodes), seed=0))
        longest = max((len(episode.prompt_token_ids) for episode in episodes), default=0)
        return SeedView(num_prompts=len(episodes), longest=longest)

    async def examine(self, order: ExamOrder) -> ExamView:
        """See ExamOrder. Raises what sampling raises."""
        version = self._node.policies.active_version if order.version is None else order.version
        episodes = await asyncio.to_thread(self._episodes, order.briefs, "exam")
        groups = await RolloutSampler(self._node.engine).siblings(
            episodes,
            version=version,
            group_size=order.replies,
            sampling=Sampling(max_tokens=order.max_tokens, temperature=1.0, seed=order.seed),
            label=f"exam-{order.seed}-v{version}-{time.monotonic_ns()}",
        )
        numbered = [
            (number, Sample.of(episode.brief, completion))
            for number, (episode, group) in enumerate(zip(episodes, groups, strict=True))
            for completion in group
        ]
        return ExamView(version=version, replies=await asyncio.to_thread(self._graded, numbered))

    def start(self, order: TrailOrder) -> None:
        """See TrailOrder. Raises RuntimeError while a run is under way."""
        if self.running or self._node.tuning.summary == "running":
            raise RuntimeError("one run at a time, and one is running")
        self._run = _TrailRun(time.monotonic(), asyncio.Event())
        self._run.task = asyncio.create_task(self._carry_out(self._run, order), name="bench-trail")

    @property
    def view(self) -> TrailView:
        return self._run.view if self._run is not None else TrailView(running=False, steps=[], at_s=[])

    async def stop(self) -> TrailView:
        """Let the run end after its current step, and wait for that."""
        if self._run is not None and self._run.task is not None:
            self._run.stop.set()
            await asyncio.wait({self._run.task})
        return self.view

    async def _carry_out(self, run: _TrailRun, order: TrailOrder) -> None:
        """The boundary that a failed run does not cross: the reason is in the view."""
        hooks = RunHooks(
            on_step=run.on_step,
            on_evaluation=_ignore_evaluation,
            on_published=run.on_published,
            stop=run.stop,
            on_checkpoint=_ignore_standing,
        )
        try:
            plan = self._plan(order)
            await self._loop(order.lag).run("bench-trail", plan, hooks)
        except ColoqError as error:
            run.failure = str(error)

    def _plan(self, order: TrailOrder) -> RunPlan:
        """Rollouts of that age are admitted, and what they do to the weights, which is measured, ends no run."""
        tuning = self._node.config.tuning
        config = tuning.model_copy(
            update={
                "max_staleness": order.lag,
                "importance_correction": order.correction,
                "checkpoint_every": 0,
                "health": tuning.health.model_copy(update={"min_effective_sample_size": 0.0}),
            }
        )
        request = RunRequest(
            languages=tuple(order.languages),
            steps=order.steps,
            group_size=order.group_size,
            prompts_per_step=order.prompts_per_step,
            max_tokens=order.max_tokens,
            learning_rate=order.learning_rate,
            gate=False,
            seed=order.seed,
        )
        return RunPlan.of(request, config, tuple(order.languages))

    def _loop(self, lag: int) -> TuningLoop:
        node = self._node
        publisher, placement = node.policies, node.policies.placement
        if not isinstance(placement, AdapterSlots):
            raise ColoqError("old rollouts need tuning.method adapter, which keeps old versions")
        trail = Trail(lag, publisher.active_version)
        evaluator = self._evaluator

        def start_promotion(run_id: str, plan: RunPlan) -> Promotion:
            return TrailingPromotion(trail, placement, publisher, evaluator, run_id, plan)

        return TuningLoop(
            journal=node.journal,
            sampler=TrailingSampler(node.engine, trail),
            panel=self._panel,
            trainer=publisher.trainer,
            ledger=publisher.ledger,
            start_promotion=start_promotion,
            admission=_Always(),
        )

    @cached_property
    def _prompts(self) -> Prompts:
        from service.encoder import ChatEncoder

        return Prompts(ChatEncoder.load(self._model), PromptLibrary.load())

    @cached_property
    def _examiner(self) -> Examiner:
        return Examiner.of(self._node.config.rewards)

    @property
    def _panel(self) -> Panel:
        judge = self._examiner.judge
        if not isinstance(judge, Panel):
            raise TypeError(f"a node's examiner judges with a panel, got {type(judge).__name__}")
        return judge

    @cached_property
    def _evaluator(self) -> Evaluator:
        """Promotions want one; runs of the bench have no gate and never ask it."""
        node = self._node
        return Evaluator(
            journal=node.journal,
            sampler=RolloutSampler(node.engine),
            panel=self._panel,
            admission=_Always(),
            second_opinion=second_opinion(),
            temperature=1.0,
            config=GateConfig(enabled=False),
        )

    def _episodes(self, briefs: Sequence[Brief], label: str) -> list[Episode]:
        name = f"{label}-{time.monotonic_ns()}"
        return [self._prompts.episode(brief, f"{name}-{number}") for number, brief in enumerate(briefs)]

    def _graded(self, numbered: Sequence[tuple[int, Sample]]) -> list[Graded]:
        graded: list[Graded] = []
        for first in range(0, len(numbered), _GRADED_AT_ONCE):
            part = numbered[first : first + _GRADED_AT_ONCE]
            graded += self._examiner.grade([number for number, _ in part], [sample for _, sample in part])
        return graded


class _Always:
    """trainer.ports.Admission without load beside it."""

    async def admitted(self) -> None:
        """See Admission.admitted."""


async def _ignore_evaluation(evaluation: Evaluation) -> None:
    """Runs of the bench have no gate."""


async def _ignore_standing(standing: Standing) -> None:
    """Nor checkpoints."""


def learn_router(host: LearnHost) -> APIRouter:
    """The routes of LearnHost, to be guarded by whoever includes them."""
    router = APIRouter(prefix="/learn")

    @router.post("/seed")
    async def seed(order: SeedOrder) -> SeedView:
        return await host.seed(order)

    @router.post("/exam")
    async def examine(order: ExamOrder) -> ExamView:
        try:
            return await host.examine(order)
        except ColoqError as error:
            raise HTTPException(409, str(error)) from error

    @router.post("/trail/start")
    async def start(order: TrailOrder) -> Nothing:
        host.start(order)
        return Nothing()

    @router.get("/trail")
    async def view() -> TrailView:
        return host.view

    @router.post("/trail/stop")
    async def stop() -> TrailView:
        return await host.stop()

    return router
