"""Tuning runs as operators see them: one at a time, each with a status that survives the node.

A run that fails is recorded with its reason and harms nothing: the last published policy keeps serving. One that the
end of the node, its engine or its store interrupts goes on from its last checkpoint when it is resumed.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from agent.errors import ColoqError, Conflict, EngineDead, GateRejected, InvalidInput, StoreError
from trainer.config import TuningConfig
from trainer.loop import RunHooks, TuningLoop
from trainer.plan import RunPlan
from trainer.ports import PolicyLedger
from trainer.promotion import Resumption, Standing
from trainer.records import Evaluation, RunRequest, RunState, RunStatus, StepReport
from trainer.run_records import RunRecords

log = structlog.get_logger(__name__)

_MAX_RESUMES_WITHOUT_A_STEP = 2
"""What interrupts a run as often without letting it take a step is likely the run itself."""


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
        *,
        on_evaluation: Callable[[Evaluation], None] = lambda evaluation: None,
        records: RunRecords,
        languages_of: Callable[[str], Sequence[str]] = lambda tenant: (),
    ) -> None:
        """Runs of ``loop``, whose journal is the one that ``records`` keeps the draws of.

        Args:
            languages: those of all tenants.
            on_step: feeds the metrics.
            on_end: likewise; its status has what was published since the run was started or resumed.
            on_evaluation: likewise, of every candidate that the gate has decided about.
            languages_of: those of one tenant; none when there is no such tenant.
        """
        self._languages_of = languages_of
        self._records = records
        self._picking_up: asyncio.Task[None] | None = None
        self._loop, self._ledger, self._config = loop, ledger, config
        self.use_languages(languages)
        self._on_step, self._on_end, self._on_evaluation = on_step, on_end, on_evaluation
        self._running: _Running | None = None
        self._last: RunStatus | None = None

    @property
    def summary(self) -> str:
        """`idle`, `running`, or `stopped: <reason>` when the last run failed or was interrupted."""
        if self._running is not None:
            return "running"
        if self._last is not None and self._last.state in (RunState.FAILED, RunState.INTERRUPTED):
            return f"stopped: {self._last.reason}"
        return "idle"

    @property
    def _own(self) -> dict[str, RunStatus]:
        """Statuses that may be newer than the ledger's: of the running run, and of the last one to end."""
        newest = [self._last, self._running.status if self._running is not None else None]
        return {status.id: status for status in newest if status is not None}

    def use_languages(self, languages: Sequence[str]) -> None:
        """Take these as the languages of all tenants, for runs that start from now on."""
        self._languages = tuple(sorted(set(languages)))

    async def start(self, request: RunRequest) -> RunStatus:
        """Start a run.

        Raises:
            Conflict: one is running; ``blocking_id`` is its id.
            InvalidInput: a language that no tenant has, or a tenant that is not there or cannot have its own policy.
        """
        self._check_free()
        plan = RunPlan.of(request, self._config, self._check_languages(request))
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
        running = _Running(status, self._ledger)
        self._running = running
        try:
            await self._records.begin(status.id)
            await self._ledger.save_run(status)
        except BaseException:
            self._running = None
            raise
        running.task = asyncio.create_task(self._carry_out(running, plan, None), name=status.id)
        return status

    async def resume(self, run_id: str) -> RunStatus:
        """Go on with an interrupted run from its last checkpoint.

        Raises:
            NotFound: there is no such run.
            Conflict: a run is running, this one is not interrupted, or it belongs to other settings or another model.
            StoreError: ledger or journal could not be reached.
        """
        status = await self.status(run_id)
        self._check_free()
        if status.state is not RunState.INTERRUPTED:
            raise Conflict(
                f"only an interrupted run can be resumed, and {run_id} {_ENDED[status.state]}: start a new run"
            )
        running = _Running(status, self._ledger)
        self._running = running
        try:
            own = [policy.version for policy in await self._ledger.policies() if policy.run_id == run_id]
            languages = self._check_languages(status.request)
            running.status, plan, resumption = await self._records.resume(status, self._config, languages)
            running.status = replace(running.status, published=tuple(sorted(own)))
            running.num_published = len(own)
            await self._ledger.save_run(running.status)
        except BaseException:
            self._running = None
            raise
        log.info("tuning_run_resumed", run=run_id, step=len(running.status.steps))
        running.task = asyncio.create_task(self._carry_out(running, plan, resumption), name=run_id)
        return running.status

    async def pick_up(self) -> None:
        """A fresh engine is ready: a run on the one before is over. The newest run, if it was interrupted, goes on
        (`tuning.resume = "auto"`) or is shown as what tuning stopped at. Raises StoreError."""
        await self._interrupt("the engine process was replaced during the run")
        newest = next(iter(await self.list()), None)
        if self._config.resume == "auto":
            self._picking_up = asyncio.create_task(self._resume_newest(), name="resume")
        elif newest is not None and newest.state is RunState.INTERRUPTED:
            self._last = newest
            log.warning("tuning_run_interrupted", run=newest.id, advice=f"coloq tune resume {newest.id}")

    async def status(self, run_id: str) -> RunStatus:
        """Raises NotFound."""
        own = self._own.get(run_id)
        return own if own is not None else await self._ledger.run(run_id)

    async def list(self) -> Sequence[RunStatus]:
        """Newest first."""
        stored = await self._ledger.runs()
        return [self._own.get(status.id, status) for status in stored]

    async def stop(self, run_id: str) -> RunStatus:
        """Ask a run to stop after its current step; an interrupted one is given up, another final one returned as it
        is. Raises NotFound."""
        status = await self.status(run_id)
        if self._running is not None and self._running.status.id == run_id:
            self._running.stop.set()
            self._running.status = replace(self._running.status, state=RunState.STOPPING)
            return self._running.status
        if status.state is RunState.INTERRUPTED:
            status = replace(status, state=RunState.STOPPED, reason=_BY_AN_OPERATOR)
            await self._ledger.save_run(status)
            await self._records.discard(status)
            if self._last is not None and self._last.id == run_id:
                self._last = status
        return status

    async def close(self) -> None:
        """Cancel the running run, if any; it is recorded as interrupted."""
        if self._picking_up is not None:
            self._picking_up.cancel()
        await self._interrupt("the node is stopping")

    async def _interrupt(self, reason: str) -> None:
        if self._running is not None and self._running.task is not None:
            self._running.cancelled_because = reason
            self._running.task.cancel()
            await asyncio.wait({self._running.task})

    def _check_languages(self, request: RunRequest) -> tuple[str, ...]:
        """The languages that may be drawn from, which those of the request must be among."""
        languages = self._languages if request.tenant is None else self._tenant_languages(request.tenant)
        if not languages:
            raise InvalidInput("languages", "no tenant is configured, so there is nothing to tune on")
        for language in request.languages:
            if language not in languages:
                raise InvalidInput("languages", f"must be among {', '.join(languages)}, got {language}")
        return languages

    def _tenant_languages(self, tenant: str) -> tuple[str, ...]:
        if self._config.method == "full":
            raise InvalidInput(
                "tenant", 'must be unset with tuning.method = "full": one copy of the weights serves all tenants'
            )
        languages = tuple(sorted(self._languages_of(tenant)))
        if not languages:
            raise InvalidInput("tenant", f"must be a tenant of this node, got {tenant}")
        return languages

    def _check_free(self) -> None:
        if self._running is not None:
            running = self._running.status.id
            raise Conflict(f"one tuning run at a time, and {running} is running", blocking_id=running)

    async def _resume_newest(self) -> None:
        """The boundary that outlives a run that cannot be resumed: its reason is logged, and the node serves on."""
        try:
            newest = next(iter(await self.list()), None)
            if newest is None or newest.state is not RunState.INTERRUPTED:
                return
            if newest.resumed_after.count(len(newest.steps)) >= _MAX_RESUMES_WITHOUT_A_STEP:
                raise Conflict(f"{newest.id} was interrupted again and again before its next step")
            self._last = newest
            await self.resume(newest.id)
        except ColoqError as error:
            log.error("tuning_run_not_resumed", reason=str(error))

    async def _carry_out(self, running: "_Running", plan: RunPlan, resumption: Resumption | None) -> None:
        """The boundary that outlives whatever a run raises."""

        def save(standing: Standing) -> Awaitable[None]:
            return self._records.save(running.status, plan, standing, self._loop.trainer.checkpoint)

        hooks = RunHooks(
            on_step=lambda report: self._step_done(running, report),
            on_evaluation=lambda evaluation: self._evaluated(running, evaluation),
            on_published=running.on_published,
            stop=running.stop,
            on_checkpoint=save,
        )
        state, reason = RunState.SUCCEEDED, None
        try:
            if not await self._loop.run(running.status.id, plan, hooks, resumption):
                state, reason = RunState.STOPPED, _BY_AN_OPERATOR
        except GateRejected as error:
            state, reason = RunState.REJECTED, str(error)
        except (EngineDead, StoreError) as error:
            state, reason = running.interrupted(str(error))
        except ColoqError as error:
            state, reason = RunState.FAILED, str(error)
        except asyncio.CancelledError:
            state, reason = running.interrupted(running.cancelled_because)
        except Exception as error:  # the node outlives any run; the reason is recorded
            state, reason = RunState.FAILED, f"{type(error).__name__}: {error}"
            log.exception("tuning_run_crashed", run=running.status.id)
        await self._finish(running, state, reason)

    async def _finish(self, running: "_Running", state: RunState, reason: str | None) -> None:
        final = replace(running.status, state=state, reason=reason, ended_at=_now())
        self._records.close()
        self._last, self._running = final, None
        self._on_end(replace(final, published=final.published[running.num_published :]))
        log.info("tuning_run_ended", run=final.id, state=state.value, reason=reason, published=list(final.published))
        try:
            await self._ledger.save_run(final)
        except ColoqError as error:
            log.error("tuning_run_not_recorded", run=final.id, reason=str(error))
        else:
            await self._records.discard(final)

    async def _evaluated(self, running: "_Running", evaluation: Evaluation) -> None:
        running.status = replace(running.status, evaluation=evaluation)
        self._on_evaluation(evaluation)
        log.info(
            "gate_decided",
            version=evaluation.version,
            baseline=evaluation.baseline_version,
            verdict=evaluation.report.verdict.value if evaluation.report is not None else None,
            rejected=sorted(evaluation.rejected),
        )

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


_BY_AN_OPERATOR = "stopped by an operator"
_ENDED = {
    RunState.RUNNING: "is running",
    RunState.STOPPING: "is stopping",
    RunState.SUCCEEDED: "succeeded",
    RunState.STOPPED: "was stopped",
    RunState.REJECTED: "was rejected",
    RunState.FAILED: "failed",
}


class _Running:
    """The run in progress."""

    def __init__(self, status: RunStatus, ledger: PolicyLedger) -> None:
        self.status = status
        self.num_published = 0
        """Policies that it had published before it was resumed."""
        self.cancelled_because = ""
        self._ledger = ledger
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def on_published(self, version: int) -> None:
        """Recorded at once: a run that is resumed must know which of its policies were activated."""
        self.status = replace(self.status, published=(*self.status.published, version))
        await self._ledger.save_run(self.status)

    def interrupted(self, reason: str) -> tuple[RunState, str]:
        """How the run ends when something around it ended."""
        return (RunState.STOPPED, _BY_AN_OPERATOR) if self.stop.is_set() else (RunState.INTERRUPTED, reason)


def _now() -> datetime:
    return datetime.now(UTC)
