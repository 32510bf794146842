"""A tuning run, as the order of its steps:

    draw (claim prompts → sample siblings → score → advantages) → batch → one optimizer step → candidate ready → report
    … and, when due: evaluate → gate → publish

Drawing is trainer.draw's; siblings are sampled from the newest candidate. What a candidate is, who sees it, and how it
is published or undone is trainer.promotion's, by method.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from agent.errors import GateRejected, TuningError
from agent.ports import ClaimingJournal
from rewards.panel import Panel
from rewards.score import Score
from trainer.batch import build_batch
from trainer.draw import Drawn, GroupSource
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
    """Keeps what a run needs to go on from here, where ``RunPlan.checkpoints_after`` says so."""


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
        try:
            num_done = await _begin(promotion, plan, hooks, resumption)
            for step in range(num_done + 1, plan.num_steps + 1):
                if hooks.stop.is_set():
                    return False
                steps.append(await self._advance(step, source, promotion, plan, hooks))
                _check_health(steps, plan)
                if plan.checkpoints_after(step) and hooks.on_checkpoint is not None:
                    await hooks.on_checkpoint(promotion.standing)
                if plan.publishes_after(step) and not hooks.stop.is_set():
                    await _promote(promotion, plan, hooks)
            return promotion.published
        finally:
            await promotion.abandon()

    async def _advance(
        self, step: int, source: GroupSource, promotion: Promotion, plan: RunPlan, hooks: RunHooks
    ) -> StepReport:
        """One optimizer step: the candidate becomes a new version."""
        drawn = await source.draw(step, promotion.lineage, plan)
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


async def _begin(promotion: Promotion, plan: RunPlan, hooks: RunHooks, resumption: Resumption | None) -> int:
    """Get the learner ready; returns the number of steps that are done, publication included."""
    if resumption is None:
        await promotion.begin()
        return 0
    await promotion.resume(resumption)
    if plan.publishes_after(resumption.step) and not promotion.published:
        await _promote(promotion, plan, hooks)
    return resumption.step


async def _promote(promotion: Promotion, plan: RunPlan, hooks: RunHooks) -> None:
    """Gate and publish the candidate.

    Raises:
        GateRejected: the candidate is worse in a language.
    """
    evaluation = None
    if plan.gate:
        evaluation = await promotion.evaluate()
        await hooks.on_evaluation(evaluation)
        if evaluation.rejected:
            raise GateRejected("; ".join(f"{language}: {why}" for language, why in evaluation.rejected.items()))
    await promotion.publish(evaluation)
    await hooks.on_published(promotion.version)


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
