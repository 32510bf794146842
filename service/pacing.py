"""The loop that keeps tuning within the SLO: ten times a second it asks the worker for a pulse and tells it a pace.

    sleep ─► coloq_pace(pace) ─► pulse ─► controller ─► pace, limit of rollouts, gate of scoring ─► metrics
               ▲                                          │ changed: told at once
               └──────────────────────────────────────────┘

Without a tuning run a tick a second is enough, and without live requests either the worker is not asked at all: an idle
node stays idle.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from statistics import fmean, median
from typing import Any, Protocol

import msgspec
import structlog

from agent.errors import EngineError
from service.controller import Controller, Decision, Observation
from service.slo import LiveRequest
from service.slots import SlotPool
from service.telemetry import EngineActivity, Metrics
from trainer.pace import Pace, Pulse

log = structlog.get_logger(__name__)

TICK_S = 0.1
_QUIET_TICK_S = 1.0
"""Between ticks when no run is active, or after a defect."""
_LOG_PERIOD_S = 1.0
_SHOWN_S = 10.0
_LONGEST_HOLD_S = 5.0


class PacedEngine(Protocol):
    """The engine as pacing sees it; service.supervised_engine.SupervisedEngine in a node."""

    @property
    def state(self) -> str:
        """`ready` when the worker can be called."""
        ...

    @property
    def slots(self) -> SlotPool: ...

    async def call(self, method: str, *args: Any) -> Any:
        """Call a worker method between two engine steps. Raises EngineError, EngineDead among them."""
        ...


class LiveRequests:
    """Collects the live requests that finish between two ticks."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._finished: list[LiveRequest] = []

    def add(self, request: LiveRequest) -> None:
        """One more has finished."""
        self._metrics.observe_generation(request.timing)
        self._finished.append(request)

    def take(self) -> list[LiveRequest]:
        """Those that finished since the last call."""
        finished, self._finished = self._finished, []
        return finished


class ScoringGate:
    """trainer.ports.Admission: scoring waits while live requests are beyond their bound, but not for ever."""

    def __init__(self, *, longest_hold_s: float = _LONGEST_HOLD_S) -> None:
        self._longest_hold_s = longest_hold_s
        self._open = asyncio.Event()
        self._open.set()

    def set(self, is_open: bool) -> None:
        """Open or close the gate."""
        if is_open:
            self._open.set()
        else:
            self._open.clear()

    async def admitted(self) -> None:
        """See Admission.admitted."""
        if self._open.is_set():
            return
        try:
            async with asyncio.timeout(self._longest_hold_s):
                await self._open.wait()
        except TimeoutError:
            log.info("scoring_not_held_longer", held_s=self._longest_hold_s)


class Pacing:
    """Runs the controller over one engine."""

    def __init__(
        self,
        engine: PacedEngine,
        controller: Controller,
        live: LiveRequests,
        gate: ScoringGate,
        metrics: Metrics,
        is_tuning: Callable[[], bool],
        *,
        num_queued: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``is_tuning`` tells whether a run is active; ``clock`` must be the one of the live requests' times.

        Args:
            num_queued: live requests that wait in front of the engine, beside those in its own queue.
        """
        self._engine, self._controller = engine, controller
        self._live, self._gate, self._metrics = live, gate, metrics
        self._sources, self._clock = [is_tuning], clock
        self._num_queued = num_queued
        self.aside = False
        """True leaves engine, slots and gate alone: somebody else paces."""
        self._activity = _RecentPulses()
        self._trouble: str | None = None
        self._logged_s = float("-inf")

    def watch(self, is_training: Callable[[], bool]) -> None:
        """Hear of training that is not a tuning run, too."""
        self._sources.append(is_training)

    def _is_tuning(self) -> bool:
        return any(source() for source in self._sources)

    async def run(self) -> None:
        """Tick until cancelled. Whatever a tick raises is logged, and the next one comes: serving outlives it."""
        while True:
            try:
                await self.tick()
            except Exception:
                log.exception("pacing_failed")
                await asyncio.sleep(_QUIET_TICK_S)
            await self._rest()

    async def _rest(self) -> None:
        """Sleep until the next tick is due; a run that starts makes it due."""
        for _ in range(round(_QUIET_TICK_S / TICK_S)):
            await asyncio.sleep(TICK_S)
            if self._is_tuning():
                return

    async def tick(self) -> bool:
        """Observe, decide and carry the decision out; False when there was nothing to pace or nobody to ask."""
        finished = self._live.take()
        if self.aside or self._engine.state != "ready":
            return False
        tuning, slots = self._is_tuning(), self._engine.slots
        if not (tuning or slots.num_live or finished):
            slots.limit_rollouts(None)
            self._gate.set(True)
            return False
        pulse = await self._tell(self._controller.pace)
        before = self._controller.pace
        seen = Observation(
            now_s=self._clock(),
            finished=finished,
            num_live=slots.num_live,
            num_waiting=slots.num_queued_live + self._num_queued(),
            num_rollouts=slots.num_rollouts,
            num_free=slots.num_free,
            tuning=tuning,
            pulse=pulse,
        )
        decision = self._controller.decide(seen)
        slots.limit_rollouts(decision.rollout_limit, evict=decision.evict)
        self._gate.set(decision.scoring)
        self._show(decision, pulse, seen.now_s)
        if pulse is not None and decision.pace != before:
            await self._tell(decision.pace)
        return pulse is not None

    async def _tell(self, pace: Pace) -> Pulse | None:
        """Send a pace; None when the worker could not be reached or did not answer with a pulse."""
        try:
            answer = await self._engine.call("coloq_pace", msgspec.msgpack.encode(pace))
            pulse = msgspec.msgpack.decode(answer, type=Pulse)
        except (EngineError, msgspec.DecodeError) as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                log.warning("worker_not_paced", reason=self._trouble)
            return None
        self._trouble = None
        return pulse

    def show(self, pulse: Pulse, slowdown: float | None) -> None:
        """Show what the engine process did lately, and what training costs its steps."""
        self._metrics.set_engine_activity(self._activity.add(pulse, self._clock()))
        self._metrics.set_step_slowdown(slowdown)

    def _show(self, decision: Decision, pulse: Pulse | None, now_s: float) -> None:
        self._metrics.observe_decision(decision)
        if pulse is not None:
            self.show(pulse, decision.slowdown)
        if decision.moves and now_s - self._logged_s >= _LOG_PERIOD_S:
            self._logged_s = now_s
            log.info(
                "controller_moved",
                direction=[move.direction.value for move in decision.moves],
                reason="; ".join(move.reason for move in decision.moves),
                level=decision.level,
                num_sms=decision.pace.num_sms,
                duty=decision.pace.duty,
                rollout_limit=decision.rollout_limit,
            )


class _RecentPulses:
    """Sums up the pulses of the last seconds: a scrape comes less often than a pulse."""

    def __init__(self) -> None:
        self._pulses: deque[tuple[float, Pulse]] = deque()

    def add(self, pulse: Pulse, now_s: float) -> EngineActivity:
        self._pulses.append((now_s, pulse))
        while now_s - self._pulses[0][0] > _SHOWN_S:
            self._pulses.popleft()
        pulses = [recent for _, recent in self._pulses]
        stepped = [recent for recent in pulses if recent.num_engine_steps and recent.step_max_ms > 0]
        duration_s = sum(recent.duration_s for recent in pulses)
        busy_s = sum(recent.busy_share * recent.duration_s for recent in stepped)
        return EngineActivity(
            step_p50_s=median(recent.step_p50_ms for recent in stepped) / 1000 if stepped else None,
            step_p99_s=median(recent.step_p99_ms for recent in stepped) / 1000 if stepped else None,
            step_max_s=max(recent.step_max_ms for recent in stepped) / 1000 if stepped else None,
            cpu_share=sum(recent.engine_cpu_s for recent in stepped) / busy_s if busy_s else None,
            device_wait_share=sum(recent.device_wait_s for recent in stepped) / busy_s if busy_s else None,
            train_share=fmean(recent.train_share for recent in pulses),
            train_tokens_per_s=sum(recent.num_train_tokens for recent in pulses) / duration_s if duration_s else 0.0,
        )
