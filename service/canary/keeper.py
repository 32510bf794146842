"""Begins, keeps and ends trials: the routes, the store and those who hear of it stay in step.

Knows no rules of who may begin what and when a trial is over: those are service.canary.canaries'.
"""

from collections.abc import Callable
from datetime import datetime

import structlog

from agent.errors import ColoqError, Conflict
from service.canary.config import CanaryConfig
from service.canary.parts import CanaryParts
from service.canary.records import Baseline, Kind, Outcome, StoredTrial, TrialRecord
from service.canary.tally import Side
from service.canary.trial import Trial

log = structlog.get_logger(__name__)

_SAVE_EVERY_S = 5.0


class TrialKeeper:
    """Keeps the one trial of a node. Its callers hold a lock."""

    def __init__(self, config: CanaryConfig, parts: CanaryParts, now: Callable[[], datetime]) -> None:
        self._config, self._parts, self._now = config, parts, now
        self._saved_at = now()
        self._unstored: list[TrialRecord] = []
        """Trials that ended while the store was away: whether a policy did harm decides if it may be promoted."""
        self._not_held: dict[int, str] = {}
        """Versions that could not be brought back, and why; each reason is logged once."""

    @property
    def running(self) -> TrialRecord | None:
        """The canary or watch in progress."""
        trial = self._parts.traffic.trial
        return None if trial is None else trial.record

    @property
    def canary(self) -> TrialRecord | None:
        """The canary in progress."""
        running = self.running
        return running if running is not None and running.kind is Kind.CANARY else None

    async def begin(self, record: TrialRecord, stable: Side) -> TrialRecord:
        """From here on the traffic is split."""
        await self._store_ended()  # storing the end of one forgets what is running
        stored = StoredTrial(record, Side(), stable)
        await self._parts.store.save(stored, self._parts.traffic.baseline)
        self._use(stored)
        self._parts.events.started(record)
        log.info(
            "canary_started", trial=record.id, candidate=record.candidate, stable=record.stable, share=record.share
        )
        return record

    def _use(self, stored: StoredTrial) -> None:
        trial = Trial(stored, self._config)
        self._parts.traffic.forget_waiting()
        self._parts.traffic.trial = trial
        self._parts.routes.split = None if trial.is_watch else trial.split

    async def go_on(self, stored: StoredTrial) -> None:
        record, active = stored.record, self._parts.policies.active_version
        try:
            if active != (record.candidate if record.kind is Kind.WATCH else record.stable):
                raise Conflict(f"policy {active} is active now")
            await self._parts.policies.ensure(record.candidate)
        except ColoqError as error:
            self._parts.traffic.trial = Trial(stored, self._config)
            await self.end(Outcome.INTERRUPTED, f"the engine was started again: {error}")
            return
        self._use(stored)
        self._parts.events.resumed(record)
        log.info("canary_goes_on", trial=record.id)

    async def end(self, outcome: Outcome, reason: str) -> TrialRecord:
        """Nobody gets the candidate from here on, unless it is active."""
        traffic = self._parts.traffic
        assert traffic.trial is not None
        record = traffic.trial.ended(outcome, reason, self._now())
        self._parts.routes.split = None
        traffic.trial, traffic.changed = None, True
        traffic.forget_waiting()
        log.info("canary_ended", trial=record.id, outcome=outcome.value, reason=reason)
        self._parts.events.ended(record)
        self._unstored.append(record)
        await self._store_ended()
        return record

    async def _store_ended(self) -> None:
        while self._unstored:
            await self._parts.store.end(self._unstored[0])
            del self._unstored[0]

    async def drop_watch(self, reason: str) -> None:
        if self.running is not None and self.canary is None:
            await self.end(Outcome.SUPERSEDED, reason)

    async def taken_over(self, version: int, previous: Baseline) -> None:
        """Another version is active: begin its record, and watch over it where its predecessor has left one."""
        await self.drop_watch(f"policy {version} took over")
        self._parts.traffic.baseline = Baseline(version)
        languages = tuple(sorted(previous.side.num_replies))
        if self._config.watch_s == 0 or not languages or self._parts.policies.method == "full":
            return
        now = self._now()
        await self.begin(
            TrialRecord(trial_id(Kind.WATCH, version, now), Kind.WATCH, version, previous.version, languages, now),
            previous.side,
        )

    async def keep_slots(self) -> None:
        """Bring back what requests are routed to and the engine does not hold, such as a pin of another process."""
        missing = [version for version in self._parts.routes.versions() if not self._parts.policies.holds(version)]
        self._not_held = {version: reason for version, reason in self._not_held.items() if version in missing}
        for version in sorted(missing):
            try:
                await self._parts.policies.ensure(version)
            except ColoqError as error:
                if self._not_held.get(version) != str(error):
                    self._not_held[version] = str(error)
                    log.warning("routed_policy_not_held", version=version, reason=str(error))

    async def save(self) -> None:
        """Store what has changed; called with every tick. Raises StoreError, and tries again with the next."""
        await self._store_ended()
        traffic, now = self._parts.traffic, self._now()
        if traffic.changed and (now - self._saved_at).total_seconds() >= _SAVE_EVERY_S:
            traffic.changed, self._saved_at = False, now
            trial = traffic.trial
            await self._parts.store.save(None if trial is None else trial.stored, traffic.baseline)


def trial_id(kind: Kind, version: int, at: datetime) -> str:
    """The id of a trial that begins at ``at``."""
    return f"{kind.value}-v{version}-{int(at.timestamp())}"
