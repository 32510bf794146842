"""The node's canary: started, compared, promoted or taken back; and the watch over a policy that has taken over.

    start ──► some requests get the candidate ──► tick: compare ─┬─► harm ──────► taken back
                                                                 ├─► no worse ──► promoted
                                                                 └─► time over ─► undecided
    another policy is active ──► watched: compared with its predecessor's record ─┬─► harm ──► rolled back
                                                                                  └─► passed

One trial at a time. What changes routes is an assignment between two awaits: no request is refused, cut or sent again
because a trial begins or ends; those in flight finish on the version that they began with.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import structlog

from agent.errors import CanaryRunning, ColoqError, Conflict, InvalidInput, NeedsAdapters
from agent.language import primary_code
from service.canary.comparison import Difference
from service.canary.config import CanaryConfig
from service.canary.keeper import TrialKeeper, trial_id
from service.canary.parts import CanaryParts, Status
from service.canary.records import Baseline, Kind, Outcome, TrialRecord
from service.canary.tally import Side
from service.canary.trial import Trial, Verdict
from trainer.records import PolicyRecord

log = structlog.get_logger(__name__)

_TICK_S = 2.0


class Canaries:
    """The trials of one node."""

    def __init__(
        self, config: CanaryConfig, parts: CanaryParts, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._config, self._parts, self._now = config, parts, now
        self._lock = asyncio.Lock()
        self._keeper = TrialKeeper(config, parts, now)
        self._held_back: tuple[str, str] | None = None

    @property
    def running(self) -> TrialRecord | None:
        """The canary or watch in progress."""
        return self._keeper.running

    async def status(self) -> Status:
        """Raises StoreError."""
        ended, trial = await self._parts.store.ended(), self._parts.traffic.trial
        if trial is None:
            return Status(None, [], [], {}, {}, ended)
        differences = trial.differences()
        missing = [] if trial.is_watch else trial.missing(differences)
        counts = dict(trial.candidate.num_replies), dict(trial.stable.num_replies)
        return Status(trial.record, differences, missing, *counts, ended)

    async def open(self) -> None:
        """A fresh engine is ready: go on with the trial that was running, or end it as interrupted.

        Raises:
            StoreError: the store could not be reached.
        """
        async with self._lock:
            traffic, policies = self._parts.traffic, self._parts.policies
            stored, baseline = await self._parts.store.load()
            if traffic.trial is not None:  # only the engine is new
                stored, baseline = traffic.trial.stored, traffic.baseline
            if baseline is None or baseline.version != policies.active_version:
                baseline = Baseline(policies.active_version)
            traffic.baseline = baseline
            if stored is not None:
                await self._keeper.go_on(stored)
            await self._keeper.keep_slots()

    async def start(
        self, version: int, *, share: float | None = None, languages: Sequence[str] = (), supersede: bool = False
    ) -> TrialRecord:
        """Send a share of the traffic to a published version from now on.

        Args:
            share: of the end users; None takes the configuration's.
            languages: that take part; none takes the configuration's.
            supersede: end a canary of another version instead of refusing.

        Raises:
            NotFound: no such published version.
            CanaryRunning: another canary is running.
            NeedsAdapters: the method is full.
            NoAdapterSlot: pins, tenants' policies and the canary would need more slots than there are.
            Conflict: the version is active already, or is one tenant's own.
            InvalidInput: a language that no tenant has.
            PublicationFailed: its folder is missing or damaged.
        """
        async with self._lock:
            record = await self._checked(version)
            if (running := self._keeper.canary) is not None:
                if not supersede:
                    raise CanaryRunning(f"the canary of policy {running.candidate} is running", running.id)
                await self._keeper.end(Outcome.SUPERSEDED, f"policy {version} is tried instead")
            self._parts.slots.check(self._parts.routes.versions(candidate=version))
            chosen = self._languages(languages)
            await self._parts.policies.ensure(version)
            await self._keeper.drop_watch(f"a canary of policy {version} began")
            return await self._keeper.begin(
                TrialRecord(
                    id=trial_id(Kind.CANARY, version, self._now()),
                    kind=Kind.CANARY,
                    candidate=record.version,
                    stable=self._parts.policies.active_version,
                    languages=chosen,
                    started_at=self._now(),
                    share=self._config.share if share is None else share,
                ),
                Side(),
            )

    async def stop(self, reason: str = "stopped by an operator") -> TrialRecord:
        """Take the candidate back: everybody gets the stable policy. Raises Conflict when no canary is running."""
        async with self._lock:
            if self._keeper.canary is None:
                raise Conflict("no canary is running")
            return await self._keeper.end(Outcome.STOPPED, reason)

    async def promote(self, version: int, *, force: bool = False) -> PolicyRecord:
        """Send everybody to a published version; a canary of it ends, and its predecessor's record watches over it.

        Args:
            force: also when the version's last trial found harm.

        Raises:
            NotFound, PublicationFailed: as ``start``.
            CanaryRunning: a canary of another version is running.
            Conflict: its last trial found harm, or it is one tenant's own.
        """
        async with self._lock:
            await self._parts.policies.find(version)
            running = self._keeper.canary
            if running is not None and running.candidate != version:
                raise CanaryRunning(f"the canary of policy {running.candidate} is running", running.id)
            if not force:
                await self._refuse_harmful(version)
            return await self._promote(version, "promoted by an operator")

    async def rollback(self, version: int, *, to: int | None = None) -> PolicyRecord:
        """Take a version back that is a canary's candidate, or active: then everybody gets ``to``, or the version that
        was active before.

        Raises:
            Conflict: the version serves nobody, or nothing was active before it.
            NotFound, PublicationFailed: of the target; the version goes on serving.
        """
        async with self._lock:
            policies = self._parts.policies
            await policies.find(version)
            if (running := self._keeper.canary) is not None and running.candidate == version:
                await self._keeper.end(Outcome.STOPPED, "rolled back by an operator")
                return await policies.find(policies.active_version)
            if version != policies.active_version:
                raise Conflict(f"policy {version} is not active, policy {policies.active_version} is")
            return await self._roll_back(to, Outcome.STOPPED, "rolled back by an operator")

    async def run(self) -> None:
        """Tick until cancelled. Whatever a tick raises is logged, and the next one comes: serving outlives it."""
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                await self.tick()
            except ColoqError as error:  # mostly a store that is away: no defect, so no stack
                log.warning("canary_tick_failed", reason=str(error))
            except Exception:
                log.exception("canary_tick_failed")

    async def tick(self) -> None:
        """Score what is due, compare, and act on it. Raises StoreError, and what publishing raises."""
        await self._parts.scoring.score_due()
        await self._parts.feedback.note_due()
        async with self._lock:
            await self._follow_active()
            trial = self._parts.traffic.trial
            if trial is not None:
                differences = trial.differences()
                self._parts.events.compared(trial.record, differences)
                await self._act(trial, differences)
            await self._keeper.keep_slots()
            await self._keeper.save()

    async def _checked(self, version: int) -> PolicyRecord:
        record = await self._parts.policies.find(version)
        if self._parts.policies.method == "full":
            raise NeedsAdapters(
                'a canary needs tuning.method = "adapter": by method full there is one copy of the weights, and every '
                "request runs on it"
            )
        if record.tenant is not None:
            raise Conflict(f"policy {version} was tuned for tenant {record.tenant} alone and cannot serve all tenants")
        if version == self._parts.policies.active_version:
            raise Conflict(f"policy {version} is active already")
        return record

    def _languages(self, chosen: Sequence[str]) -> tuple[str, ...]:
        known = sorted({primary_code(code) for code in self._parts.languages()})
        wanted = tuple(sorted({primary_code(code) for code in chosen or self._config.languages}))
        for language in wanted:
            if language not in known:
                raise InvalidInput("languages", f"must be among {', '.join(known) or 'none'}, got {language}")
        if not known:
            raise InvalidInput("languages", "no tenant has a language, so there is no traffic to try a policy on")
        return wanted or tuple(known)

    async def _refuse_harmful(self, version: int) -> None:
        last = next((item for item in await self._parts.store.ended() if item.candidate == version), None)
        if last is not None and last.outcome is Outcome.HARMFUL:
            raise Conflict(
                f"policy {version} did harm in its last trial ({last.reason}); force promotes it all the same"
            )

    async def _promote(self, version: int, reason: str) -> PolicyRecord:
        previous, active = self._parts.traffic.baseline, self._parts.policies.active_version
        record = await self._parts.policies.activate(version)
        if self._keeper.canary is not None:
            await self._keeper.end(Outcome.PROMOTED, reason)
        if version != active:
            await self._keeper.taken_over(version, previous)
        return record

    async def _roll_back(self, to: int | None, outcome: Outcome, reason: str) -> PolicyRecord:
        policies = self._parts.policies
        target = await policies.previous() if to is None else to
        if target is None or target == policies.active_version:
            raise Conflict("nothing was active before" if to is None else f"policy {to} is active already")
        record = await policies.activate(target)
        if self._keeper.running is not None:
            await self._keeper.end(outcome, reason)
        self._parts.traffic.baseline = Baseline(target)
        log.info("policy_rolled_back", to=target, reason=reason)
        return record

    async def _follow_active(self) -> None:
        """Another version may have been activated past this object: by an operator, or by a tuning run."""
        active, previous = self._parts.policies.active_version, self._parts.traffic.baseline
        if active == previous.version:
            return
        running = self._keeper.canary
        if running is not None:
            promoted = active == running.candidate
            outcome = Outcome.PROMOTED if promoted else Outcome.SUPERSEDED
            await self._keeper.end(outcome, f"policy {active} was activated")
        if active > previous.version:
            await self._keeper.taken_over(active, previous)
        else:
            await self._keeper.drop_watch(f"policy {active} was activated")
            self._parts.traffic.baseline = Baseline(active)

    async def _act(self, trial: Trial, differences: Sequence[Difference]) -> None:
        decision = trial.decide(differences, self._now())
        if decision.verdict is Verdict.STOP:
            if not self._config.auto_stop:
                self._hold_back(trial, f"harm found, and canary.auto_stop is off: {decision.reason}")
            elif trial.is_watch:
                await self._roll_back(trial.record.stable, Outcome.HARMFUL, decision.reason)
            else:
                await self._keeper.end(Outcome.HARMFUL, decision.reason)
        elif decision.verdict is Verdict.EXPIRE:
            await self._keeper.end(Outcome.UNDECIDED, decision.reason)
        elif decision.verdict is Verdict.PROMOTE and trial.is_watch:
            await self._keeper.end(Outcome.PASSED, decision.reason)
        elif decision.verdict is Verdict.PROMOTE and self._config.auto_promote:
            await self._promote(trial.record.candidate, decision.reason)
        elif decision.verdict is Verdict.PROMOTE:
            self._hold_back(trial, f"waits for an operator: {decision.reason}")

    def _hold_back(self, trial: Trial, reason: str) -> None:
        """Log once what would have been done."""
        told = trial.record.id, reason.partition(":")[0]
        if told != self._held_back:
            log.warning("canary_not_acted_on", trial=trial.record.id, reason=reason)
        self._held_back = told
