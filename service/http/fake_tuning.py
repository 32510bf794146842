"""Fakes of the ports that tuning and its policies have in `service.http.ports`."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent.completion import BASE_VERSION
from agent.errors import Conflict, NotFound, PublicationFailed
from trainer.ports import Method
from trainer.records import PolicyRecord, RunRequest, RunState, RunStatus, StepReport
from trainer.trail import continued

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def step_report(step: int, *, reward: float = 0.5, loss: float = 0.1, version: int | None = None) -> StepReport:
    """A plausible report of one step."""
    return StepReport(
        step=step,
        version=version if version is not None else step,
        num_sequences=32,
        num_tokens=2048,
        reward_mean=reward,
        reward_std=0.1,
        reward_by_language={"de": reward},
        parts={"language": reward},
        dropped={},
        loss=loss,
        grad_norm=1.0,
        clip_fraction=0.0,
        effective_sample_size=0.97,
        mismatch_mean=0.01,
        rollout_s=1.0,
        score_s=0.1,
        train_s=0.5,
        install_s=0.01,
    )


@dataclass
class FakeTuning:
    """Runs that take one step of `reports` each time their status is asked for, and then end as `ends`.

    Without reports a run stays at its start until it is stopped.
    """

    reports: Sequence[StepReport] = ()
    ends: RunState = RunState.SUCCEEDED
    reason: str | None = None
    error: Exception | None = None
    """Raised by `start`."""
    runs: dict[str, RunStatus] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def start(self, request: RunRequest) -> RunStatus:
        if self.error is not None:
            raise self.error
        running = next((run.id for run in self.runs.values() if not run.state.final), None)
        if running is not None:
            raise Conflict(f"one tuning run at a time, and {running} is running", running)
        status = RunStatus(
            id=f"run_{next(self._ids)}",
            state=RunState.RUNNING,
            request=request,
            started_at=EPOCH,
            ended_at=None,
            num_steps=request.steps or len(self.reports) or 20,
            steps=(),
            published=(),
            evaluation=None,
            reason=None,
        )
        self.runs[status.id] = status
        return status

    async def status(self, run_id: str) -> RunStatus:
        run = self._run(run_id)
        if not run.state.final and self.reports:
            self.runs[run_id] = run = self._advanced(run)
        return run

    async def list(self) -> Sequence[RunStatus]:
        return [*reversed(self.runs.values())]

    async def stop(self, run_id: str) -> RunStatus:
        run = self._run(run_id)
        if run.state.final:
            return run
        self.runs[run_id] = replace(run, state=RunState.STOPPED, ended_at=EPOCH, reason="stopped by an operator")
        return self.runs[run_id]

    async def resume(self, run_id: str) -> RunStatus:
        run = self._run(run_id)
        if run.state is not RunState.INTERRUPTED:
            raise Conflict(f"only an interrupted run can be resumed, and {run_id} is {run.state.value}")
        self.runs[run_id] = replace(
            run,
            state=RunState.RUNNING,
            ended_at=None,
            reason=None,
            resumed_after=(*run.resumed_after, len(run.steps)),
        )
        return self.runs[run_id]

    def _run(self, run_id: str) -> RunStatus:
        if run_id not in self.runs:
            raise NotFound(f"there is no tuning run {run_id}")
        return self.runs[run_id]

    def _advanced(self, run: RunStatus) -> RunStatus:
        steps = tuple(self.reports[: len(run.steps) + 1])
        if len(steps) < len(self.reports):
            return replace(run, steps=steps)
        published = (steps[-1].version,) if self.ends is RunState.SUCCEEDED else ()
        return replace(run, steps=steps, state=self.ends, published=published, ended_at=EPOCH, reason=self.reason)


BASE_POLICY = PolicyRecord(BASE_VERSION, "base", None, None, EPOCH, None, None, None)


@dataclass
class FakePolicies:
    """Policies by version, the active one among them."""

    records: dict[int, PolicyRecord] = field(default_factory=lambda: {BASE_VERSION: BASE_POLICY})
    active_version: int = BASE_VERSION
    error: Exception | None = None
    """Raised by `activate`."""
    evicted: set[int] = field(default_factory=set)
    """Published, but not in the engine."""
    damaged: set[int] = field(default_factory=set)
    """Published, and cannot be loaded."""
    method: Method = "adapter"
    trail: list[int] = field(default_factory=lambda: [BASE_VERSION])

    async def list(self) -> Sequence[PolicyRecord]:
        return [self.records[version] for version in sorted(self.records, reverse=True)]

    async def served(self, tenant: str | None = None) -> Sequence[PolicyRecord]:
        records = [record for record in await self.list() if record.tenant in (None, tenant)]
        return [record for record in records if self.holds(record.version)]

    async def find_served(self, version: int, tenant: str | None = None) -> PolicyRecord:
        record = self.records.get(version)
        if record is None or record.tenant not in (None, tenant) or not self.holds(version):
            raise NotFound(f"there is no policy {version} in the engine")
        return record

    async def find(self, version: int) -> PolicyRecord:
        if version not in self.records:
            raise NotFound(f"there is no policy {version}")
        return self.records[version]

    def holds(self, version: int) -> bool:
        return version not in self.evicted | self.damaged

    async def ensure(self, version: int) -> None:
        await self.find(version)
        if version in self.damaged:
            raise PublicationFailed(f"policy v{version} cannot be read")
        self.evicted.discard(version)

    async def previous(self) -> int | None:
        return self.trail[-2] if len(self.trail) > 1 else None

    async def activate(self, version: int) -> PolicyRecord:
        if self.error is not None:
            raise self.error
        if (await self.find(version)).tenant is not None:
            raise Conflict(f"policy {version} is one tenant's own")
        self.active_version = version
        self.trail = continued(self.trail, version)
        return self.records[version]
