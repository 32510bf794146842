"""A tuning run, as the order of its steps:

    draw (claim prompts → sample siblings → score → advantages) → batch → one optimizer step → candidate ready → report
    … and, when due: checkpoint → evaluate → gate → publish

Neither a checkpoint nor a publication changes what the next step samples from, so that step is drawn meanwhile:

    report ─┬─► checkpoint ─► publish ─┬─► next step      report ─► checkpoint ─► gate ─┬─► publish ─┬─► next step
            └────────► draw ───────────┘                                                └──► draw ───┘

A checkpoint is of the moment before that draw. Whatever ends the run cancels the draw in flight before the candidate is
undone; its claims stay unsettled.

Drawing is trainer.draw's; siblings are sampled from the newest candidate. What a candidate is, who sees it, and how it
is published or undone is trainer.promotion's, by method.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from agent.errors import GateRejected, TuningError
from agent.ports import ClaimingJournal
from rewards.panel import Panel
from rewards.score import Score
from trainer.batch import build_batch
from trainer.draw import Drawn, Draws, GroupSource
from trainer.health import unhealthy
from trainer.plan import RunPlan
from trainer.ports import Admission, PolicyLedger, StepResult, TrainerPort
from trainer.promotion import Promotion, Resumption, Standing, StartPromotion
from trainer.records import Evaluation, StepReport
from trainer.rollout import RolloutSampler


@dataclass(frozen=True, slots=True)
class RunHooks:
    """Where a run reports, and how it is told to stop."""

    on_step: Callable[[StepReport], Awaitable[None]]
    on_evaluation: Callable[[Evaluation], Awaitable[None]]
    on_published: Callable[[int], Awaitable[None]]
    stop: asyncio.Event
    on_checkpoint: Callable[[Standing], Awaitable[None]] | None = None
    """Keeps what a run needs to go on from here, where ``RunPlan.checkpoints_after`` says so. The position is the run's
    when it is called, whatever the run does while the result is awaited."""


@dataclass(frozen=True, slots=True)
class TuningLoop:
    """Runs one plan at a time."""

    journal: ClaimingJournal
    sampler: RolloutSampler
    panel: Panel
    trainer: TrainerPort
    ledger: PolicyLedger
    start_promotion: StartPromotion
    admission: Admission
    """Asked before each group is scored: the judges hold Python's lock, which live requests need too."""

    async def run(self, run_id: str, plan: RunPlan, hooks: RunHooks, resumption: Resumption | None = None) -> bool:
        """Carry a plan out, from its beginning or from where it was interrupted; False when it was told to stop before
        the end.

        What was not published is undone when it returns or raises.

        Raises:
            TuningError: with the reason; what was published before stays.
            EngineDead: the engine process died.
            StoreError: journal or ledger could not be reached.
        """
        promotion = self.start_promotion(run_id, plan)
        source = GroupSource(self.journal, self.sampler, self.panel, self.admission)
        steps: list[StepReport] = []
        if resumption is not None:
            source.tally.update(resumption.claimed)
            steps += resumption.steps
        run = _Run(plan, hooks, promotion, Draws(source, plan))
        async with AsyncExitStack() as at_the_end:
            at_the_end.push_async_callback(promotion.abandon)
            at_the_end.push_async_callback(run.draws.cancel)
            num_done = await run.begin(resumption)
            for step in range(num_done + 1, plan.num_steps + 1):
                if hooks.stop.is_set():
                    return False
                drawn = await run.draws.take(step, promotion.lineage)
                steps.append(await self._advance(step, drawn, promotion, hooks))
                _check_health(steps, plan)
                await run.conclude(step)
            return promotion.published

    async def _advance(self, step: int, drawn: Drawn, promotion: Promotion, hooks: RunHooks) -> StepReport:
        """One optimizer step: the candidate becomes a new version."""
        batch = build_batch(drawn.sequences, num_masked=drawn.num_masked)
        version = await self.ledger.next_version()
        promotion.expect(version)
        result = await self.trainer.step(batch, version)
        started = time.perf_counter()
        await promotion.ready(version)
        install_s = time.perf_counter() - started
        await self.journal.settle(drawn.claims)
        report = _report(step, version, drawn, result, install_s)
        await hooks.on_step(report)
        return report


@dataclass(frozen=True, slots=True)
class _Run:
    """One run between its steps."""

    plan: RunPlan
    hooks: RunHooks
    promotion: Promotion
    draws: Draws

    async def begin(self, resumption: Resumption | None) -> int:
        """Get the learner ready; returns the number of steps that are done, publication included."""
        if resumption is None:
            await self.promotion.begin()
            return 0
        await self.promotion.resume(resumption)
        if self.plan.publishes_after(resumption.step) and not self.promotion.published:
            await self._promote(resumption.step)
        return resumption.step

    async def conclude(self, step: int) -> None:
        """Keep and publish what a step came to, where that is due; the next step is drawn meanwhile."""
        publishes = self.plan.publishes_after(step)
        checkpoint = None
        if self.plan.checkpoints_after(step) and self.hooks.on_checkpoint is not None:
            checkpoint = self.hooks.on_checkpoint(self.promotion.standing)
        if not (publishes and self.plan.gate):
            self._draw_after(step)
        if checkpoint is not None:
            await checkpoint
        if publishes and not self.hooks.stop.is_set():
            await self._promote(step)

    async def _promote(self, step: int) -> None:
        """Gate and publish the candidate.

        Raises:
            GateRejected: the candidate is worse in a language.
        """
        evaluation = None
        if self.plan.gate:
            evaluation = await self.promotion.evaluate()
            await self.hooks.on_evaluation(evaluation)
            if evaluation.rejected:
                raise GateRejected("; ".join(f"{language}: {why}" for language, why in evaluation.rejected.items()))
        self._draw_after(step)
        await self.promotion.publish(evaluation)
        await self.hooks.on_published(self.promotion.version)

    def _draw_after(self, step: int) -> None:
        """Begin the draw of the next step, if there is to be one."""
        if step < self.plan.num_steps and not self.hooks.stop.is_set():
            self.draws.begin(step + 1, self.promotion.lineage)


def _check_health(steps: Sequence[StepReport], plan: RunPlan) -> None:
    """Raises TuningError when a threshold of tuning.health is crossed; what was not published is undone then."""
    reason = unhealthy(steps, plan.config.health)
    if reason is not None:
        raise TuningError(reason)


def _report(step: int, version: int, drawn: Drawn, result: StepResult, install_s: float) -> StepReport:
    graded = [
        (group.brief.language, score) for group in drawn.groups for score in group.scores if isinstance(score, Score)
    ]
    values = [score.value for _, score in graded]
    by_language: defaultdict[str, list[float]] = defaultdict(list)
    parts: defaultdict[str, list[float]] = defaultdict(list)
    parts_by_language: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for language, score in graded:
        by_language[language].append(score.value)
        for name, value in score.parts.items():
            parts[name].append(value)
            parts_by_language[name][language].append(value)
    mean = _mean(values)
    return StepReport(
        step=step,
        version=version,
        num_sequences=len(drawn.sequences),
        num_tokens=sum(len(sequence.completion.token_ids) for sequence in drawn.sequences),
        reward_mean=mean,
        reward_std=(_mean([(value - mean) ** 2 for value in values])) ** 0.5,
        reward_by_language={language: _mean(rewards) for language, rewards in sorted(by_language.items())},
        parts={name: _mean(part) for name, part in sorted(parts.items())},
        dropped=dict(drawn.dropped),
        loss=result.loss,
        grad_norm=result.grad_norm,
        clip_fraction=result.clip_fraction,
        effective_sample_size=result.effective_sample_size,
        mismatch_mean=result.mismatch_mean,
        rollout_s=drawn.rollout_s,
        score_s=drawn.score_s,
        train_s=result.duration_s,
        install_s=install_s,
        passed_over=drawn.passed_over,
        num_logged_groups=drawn.num_logged_groups,
        num_sampled_groups=drawn.num_sampled_groups,
        staleness_mean=drawn.staleness_mean,
        staleness_max=drawn.staleness_max,
        mismatch_max=result.mismatch_max,
        entropy=result.entropy,
        behaviour_kl=result.behaviour_kl,
        base_kl=result.base_kl,
        parts_by_language={
            name: {language: _mean(part) for language, part in sorted(languages.items())}
            for name, languages in sorted(parts_by_language.items())
        },
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
