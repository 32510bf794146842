"""Tuning runs as operators see them: one at a time, each with a status that survives the node.

A run that fails is recorded with its reason and harms nothing: the last published policy keeps serving.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from agent.errors import ColoqError, Conflict, GateRejected, InvalidInput
from trainer.config import TuningConfig
from trainer.loop import RunHooks, TuningLoop
from trainer.plan import RunPlan
from trainer.ports import PolicyLedger
from trainer.records import Evaluation, RunRequest, RunState, RunStatus, StepReport

log = structlog.get_logger(__name__)


class TuningRuns:
    """Starts, watches and stops runs."""

    def __init__(
        self,
        loop: TuningLoop,
        ledger: PolicyLedger,
        config: TuningConfig,
        languages: Sequence[str],
        on_step: Callable[[StepReport], None] = lambda report: None,
        on_end: Callable[[RunStatus], None] = lambda status: None,
    ) -> None:
        """``languages`` are those of all tenants; ``on_step`` and ``on_end`` feed the metrics."""
        self._loop, self._ledger, self._config = loop, ledger, config
        self.use_languages(languages)
        self._on_step, self._on_end = on_step, on_end
        self._running: _Running | None = None
        self._last: RunStatus | None = None

    @property
    def summary(self) -> str:
        """`idle`, `running`, or `stopped: <reason>` when the last run failed."""
        if self._running is not None:
            return "running"
        if self._last is not None and self._last.state is RunState.FAILED:
            return f"stopped: {self._last.reason}"
        return "idle"

    @property
    def _own(self) -> dict[str, RunStatus]:
        """Statuses that may be newer than the ledger's: of the running run, and of the last one to end."""
        newest = [self._running.status if self._running is not None else None, self._last]
        return {status.id: status for status in newest if status is not None}

    def use_languages(self, languages: Sequence[str]) -> None:
        """Take these as the languages of all tenants, for runs that start from now on."""
        self._languages = tuple(sorted(set(languages)))

    async def start(self, request: RunRequest) -> RunStatus:
        """Start a run.

        Raises:
            Conflict: one is running; ``blocking_id`` is its id.
            InvalidInput: a language that no tenant has.
        """
        if self._running is not None:
            raise Conflict("one tuning run at a time, and one is running", blocking_id=self._running.status.id)
        if not self._languages:
            raise InvalidInput("languages", "no tenant is configured, so there is nothing to tune on")
        for language in request.languages:
            if language not in self._languages:
                raise InvalidInput("languages", f"must be among {', '.join(self._languages)}, got {language}")
        plan = RunPlan.of(request, self._config, self._languages)
        status = RunStatus(
            id=f"run_{secrets.token_hex(6)}",
            state=RunState.RUNNING,
            request=request,
            started_at=_now(),
            ended_at=None,
            num_steps=plan.num_steps,
            steps=(),
            published=(),
            evaluation=None,
            reason=None,
        )
        running = _Running(status)
        self._running = running
        try:
            await self._ledger.save_run(status)
        except BaseException:
            self._running = None
            raise
        running.task = asyncio.create_task(self._carry_out(running, plan), name=status.id)
        return status

    async def status(self, run_id: str) -> RunStatus:
        """Raises NotFound."""
        own = self._own.get(run_id)
        return own if own is not None else await self._ledger.run(run_id)

    async def list(self) -> Sequence[RunStatus]:
        """Newest first."""
        stored = await self._ledger.runs()
        return [self._own.get(status.id, status) for status in stored]

    async def stop(self, run_id: str) -> RunStatus:
        """Ask a run to stop after its current step; a final run is returned as it is. Raises NotFound."""
        status = await self.status(run_id)
        if self._running is not None and self._running.status.id == run_id:
            self._running.stop.set()
            self._running.status = replace(self._running.status, state=RunState.STOPPING)
            return self._running.status
        return status

    async def close(self) -> None:
        """Cancel the running run, if any; it is recorded as stopped."""
        if self._running is not None and self._running.task is not None:
            self._running.task.cancel()
            await asyncio.wait({self._running.task})

    async def _carry_out(self, running: "_Running", plan: RunPlan) -> None:
        """The boundary that outlives whatever a run raises."""
        hooks = RunHooks(
            on_step=lambda report: self._step_done(running, report),
            on_evaluation=running.on_evaluation,
            on_published=running.on_published,
            stop=running.stop,
        )
        state, reason = RunState.SUCCEEDED, None
        try:
            if not await self._loop.run(running.status.id, plan, hooks):
                state, reason = RunState.STOPPED, "stopped by an operator"
        except GateRejected as error:
            state, reason = RunState.REJECTED, str(error)
        except ColoqError as error:
            state, reason = RunState.FAILED, str(error)
        except asyncio.CancelledError:
            state, reason = RunState.STOPPED, "the node is stopping"
        except Exception as error:  # the node outlives any run; the reason is recorded
            state, reason = RunState.FAILED, f"{type(error).__name__}: {error}"
            log.exception("tuning_run_crashed", run=running.status.id)
        await self._finish(running, state, reason)

    async def _finish(self, running: "_Running", state: RunState, reason: str | None) -> None:
        final = replace(running.status, state=state, reason=reason, ended_at=_now())
        self._last, self._running = final, None
        self._on_end(final)
        log.info("tuning_run_ended", run=final.id, state=state.value, reason=reason, published=list(final.published))
        try:
            await self._ledger.save_run(final)
        except ColoqError as error:
            log.error("tuning_run_not_recorded", run=final.id, reason=str(error))

    async def _step_done(self, running: "_Running", report: StepReport) -> None:
        running.status = replace(running.status, steps=(*running.status.steps, report))
        self._on_step(report)
        log.info(
            "tuning_step",
            step=report.step,
            version=report.version,
            reward=round(report.reward_mean, 4),
            loss=round(report.loss, 5),
            grad_norm=round(report.grad_norm, 4),
        )
        await self._ledger.save_run(running.status)


class _Running:
    """The run in progress."""

    def __init__(self, status: RunStatus) -> None:
        self.status = status
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def on_evaluation(self, evaluation: Evaluation) -> None:
        self.status = replace(self.status, evaluation=evaluation)

    async def on_published(self, version: int) -> None:
        self.status = replace(self.status, published=(*self.status.published, version))


def _now() -> datetime:
    return datetime.now(UTC)
