"""How much tuning live requests can bear: from what is measured to the trainer's pace and the rollouts' limit.

    finished requests, pulses ─► measurements, each with what tuning did meanwhile
                                   ├─ nothing ─► baseline of that load, to be shown
                                   ├─ training ─► training's lever: partition size × duty
                                   └─ rollouts ─► rollouts' lever: share of the free sequence slots
    pulses: steps over what steps of their size take without training ─► where a bound is relative: training's lever,
            what one more request adds to a step                         and how many rollouts

Pure: it is given observations and the time, and returns decisions.

The level is what holds while live requests run, and between two that come within two seconds. Without any for longer
the trainer is given the whole GPU, and rollouts every free slot; the level is kept, and holds from the first tick on
that sees a live request.

A relative bound of a few percent is less than what a percentile of some seconds' requests differs by chance, with the
load, or with what else the host does. So training is held to it by the engine's steps (trainer.matched_steps): a pace
that surely costs them more than the bound allows goes down; it goes up where the next one should be within it. Steps
with prompts in them stand for the time to the first token.

What a rollout costs need not be tried: the same fit says what one more request adds to a step. As many may be in flight
as add what the ratio allows.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from msgspec.structs import replace

from service.baseline import Baselines
from service.config import SloConfig
from service.exposure import AFTERMATH_S, Exposure, Span, Timeline
from service.lever import Lever, pace_ladder
from service.slo import MIN_REQUESTS, Baseline, Bounds, LiveRequest, Quantity, Reading, Standing
from service.slowdown import Slowdown
from service.step_costs import StepCosts
from trainer.pace import Pace, Pulse

_WINDOW_S = 6.0
_STEP_WINDOW_S = 3.0
_LINGER_S = 2.0
_LOAD_TICKS = 10
_ROLLOUT_SHARES = (0.0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)
"""Rungs of the rollouts' lever, in shares of the free slots; the lowest is a single rollout."""
_BLOCKED_S = 1.0
"""How long no rollout enters, or no reply is scored, after a violation."""
_FAR = 2.0
"""Times what a relative bound allows, beyond which two rungs go at once, and rollouts lose their slots."""


class Direction(StrEnum):
    """What a decision changed."""

    UP = "up"
    DOWN = "down"
    ROLLOUTS_UP = "rollouts_up"
    ROLLOUTS_DOWN = "rollouts_down"


@dataclass(frozen=True, slots=True)
class Observation:
    """What is known at one tick."""

    now_s: float
    finished: Sequence[LiveRequest]
    """Live requests that finished since the last tick."""
    num_live: int
    num_waiting: int
    """Live requests in the engine's queue."""
    num_rollouts: int
    """Rollouts in flight."""
    num_free: int
    """Sequence slots that rollouts could have."""
    tuning: bool
    """Whether a tuning run is active."""
    pulse: Pulse | None
    """Measurements since the last tick; None when the worker could not be asked."""


@dataclass(frozen=True, slots=True)
class Move:
    """A change, and why."""

    direction: Direction
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What holds until the next one."""

    pace: Pace
    rollout_limit: int
    evict: bool
    """Whether rollouts beyond the limit lose their slots."""
    scoring: bool
    """Whether replies may be scored in the front process."""
    level: int
    """Position on the ladder of paces; 0 is paused."""
    top_level: int
    readings: tuple[Reading, ...]
    """Of all live requests in the window, whatever ran beside them."""
    violations: tuple[Quantity, ...]
    """Quantities that have just gone beyond their bound."""
    slowdown: float | None
    """Of the engine's steps by training at the present pace; None while it is not known."""
    moves: tuple[Move, ...]


@dataclass(frozen=True, slots=True)
class _Measurement:
    quantity: Quantity
    known_s: float
    began_s: float
    ended_s: float
    value_s: float
    exposure: Exposure

    @property
    def middle_s(self) -> float:
        return (self.began_s + self.ended_s) / 2


class Controller:
    """Takes one observation per tick, about ten a second, in the order of time."""

    def __init__(self, slo: SloConfig) -> None:
        self._bounds = Bounds(slo)
        self._baselines = Baselines()
        self._known: dict[Quantity, Baseline | None] = {}
        self._timeline = Timeline()
        self._measurements: defaultdict[Quantity, deque[_Measurement]] = defaultdict(deque)
        self._unsorted: deque[_Measurement] = deque()
        """Those of which it is not known yet whether they are baseline."""
        self._sizes: tuple[int, ...] | None = None
        self._ladder: tuple[Pace, ...] = (Pace(0, 0.0),)
        self._training = Lever(1)
        self._rollouts = Lever(len(_ROLLOUT_SHARES))
        self._step_costs = StepCosts()
        self._recent_load: deque[int] = deque(maxlen=_LOAD_TICKS)
        self._before_s: float | None = None
        """The newest tick."""
        self._last_live_s = -_LINGER_S
        self._no_rollouts_until_s = self._violated_until_s = 0.0
        self._over: frozenset[Quantity] = frozenset()

    @property
    def pace(self) -> Pace:
        """What the newest decision said; paused until the worker has told its partition sizes."""
        if self._loaded:
            return self._ladder[self._training.level]
        return replace(self._ladder[-1], compares=False)  # nobody's steps are to be compared with others

    def decide(self, seen: Observation) -> Decision:
        """Take in one tick and decide what holds until the next."""
        if seen.pulse is not None:
            self._adopt(seen.pulse)
        self._take_in(seen)
        readings = self._read(seen.now_s, lambda _: True)
        violations = self._note_violations(readings, seen.now_s)
        evict, moves = False, []
        if seen.tuning and self._loaded:
            moves += self._steer_training(seen)
            evict, moved = self._steer_rollouts(seen)
            moves += moved
        return Decision(
            pace=self.pace,
            rollout_limit=self._limit(seen),
            evict=evict,
            scoring=not self._loaded or seen.now_s >= self._violated_until_s,
            level=self._training.level,
            top_level=self._training.top,
            readings=tuple(readings),
            violations=violations,
            slowdown=self._step_costs.steps.mean,
            moves=tuple(moves),
        )

    def _adopt(self, pulse: Pulse) -> None:
        """A new engine process may have other partitions; its ladder is begun in the middle."""
        if pulse.partition_sizes != self._sizes:
            self._sizes = pulse.partition_sizes
            compares = self._bounds.has_relative
            self._ladder = tuple(replace(pace, compares=compares) for pace in pace_ladder(pulse.partition_sizes))
            self._training = Lever(len(self._ladder))

    def _take_in(self, seen: Observation) -> None:
        if seen.num_live:
            self._last_live_s = seen.now_s
            self._recent_load.append(seen.num_live)
        began_s = seen.now_s if self._before_s is None else self._before_s
        self._before_s = seen.now_s
        train_share = None if seen.pulse is None else seen.pulse.train_share
        span = Span(began_s, seen.now_s, train_share, seen.num_live, seen.num_rollouts)
        self._timeline.add(span)
        self._note_steps(seen)
        self._keep_all(seen, began_s)
        while self._unsorted and seen.now_s - self._unsorted[0].known_s >= AFTERMATH_S:
            row = self._unsorted.popleft()
            if self._timeline.was_calm(row.began_s, row.ended_s):
                self._baselines.add(row.quantity, row.exposure.load, row.value_s, row.known_s)
        self._known = {quantity: self._baselines.at(quantity, self._load) for quantity in Quantity}

    def _keep_all(self, seen: Observation, began_s: float) -> None:
        """Keep what the tick measured, and let go of what is old."""
        for request in seen.finished:
            first_token_s = request.started_s + request.timing.first_token_s
            self._keep(Quantity.TTFT, request.started_s, first_token_s, request.timing.first_token_s, seen.now_s)
            if request.timing.inter_token_s is not None:
                gap_s = request.timing.inter_token_s
                self._keep(Quantity.INTER_TOKEN, first_token_s, request.finished_s, gap_s, seen.now_s)
        if seen.pulse is not None and seen.num_live and seen.pulse.step_p99_ms > 0:
            self._keep(Quantity.ENGINE_STEP, began_s, seen.now_s, seen.pulse.step_p99_ms / 1000, seen.now_s)
        for quantity, rows in self._measurements.items():
            window_s = _STEP_WINDOW_S if quantity is Quantity.ENGINE_STEP else _WINDOW_S
            while rows and seen.now_s - rows[0].known_s > window_s:
                rows.popleft()

    def _note_steps(self, seen: Observation) -> None:
        costs, lever = self._step_costs, self._training
        if costs.steps.since_s != lever.since_s:  # this pulse began with the pace before
            costs.restart(lever.since_s)
        elif seen.pulse is not None:
            paused = lever.level == 0
            costs.note(seen.pulse, seen.now_s, num_live=seen.num_live, num_rollouts=seen.num_rollouts, paused=paused)

    def _keep(self, quantity: Quantity, began_s: float, ended_s: float, value_s: float, now_s: float) -> None:
        exposure = self._timeline.exposure(began_s, ended_s)
        row = _Measurement(quantity, now_s, began_s, ended_s, value_s, exposure)
        self._measurements[quantity].append(row)
        self._unsorted.append(row)

    @property
    def _load(self) -> float:
        """Live sequences over the last second in which there were any."""
        return fmean(self._recent_load) if self._recent_load else 0.0

    def _read(self, now_s: float, counts: Callable[[_Measurement], bool]) -> list[Reading]:
        """Readings of the measurements that count: of the time between tokens, or of engine steps in its place."""
        values = {
            quantity: [row.value_s for row in self._measurements[quantity] if counts(row)] for quantity in Quantity
        }
        few = len(values[Quantity.INTER_TOKEN]) < MIN_REQUESTS
        quantities = (Quantity.TTFT, Quantity.ENGINE_STEP if few else Quantity.INTER_TOKEN)
        readings = (self._bounds.read(name, values[name], self._known[name]) for name in quantities)
        return [reading for reading in readings if reading is not None]

    def _note_violations(self, readings: Sequence[Reading], now_s: float) -> tuple[Quantity, ...]:
        """Fixed bounds that the percentiles are beyond, and relative ones that training surely is."""
        over = {reading.quantity for reading in readings if (reading.standing or Standing.CLEAR) >= Standing.OVER}
        if self._step_costs.trains(now_s):
            over |= {quantity for quantity, cost in self._costs if cost.surely_above(self._bounds.slo.ratio)}
        new, self._over = over - self._over, frozenset(over)
        if over:
            self._violated_until_s = now_s + _BLOCKED_S
        return tuple(sorted(new))

    def _steer_training(self, seen: Observation) -> list[Move]:
        """By fixed bounds, and by what training costs the engine's steps where a bound is relative."""
        lever = self._training
        paused = lever.level == 0

        def counts(row: _Measurement) -> bool:
            return row.middle_s >= lever.since_s and (row.exposure.trained or paused)

        readings = self._read(seen.now_s, counts)
        worst = _worst(readings)
        if worst is not None and worst.standing is not None and worst.standing >= Standing.OVER:
            self._violated_until_s = seen.now_s + _BLOCKED_S
            far = worst.standing is Standing.FAR_OVER
            return [Move(Direction.DOWN, _reason(worst))] if lever.lower(seen.now_s, 2 if far else 1) else []
        ratio = self._bounds.slo.ratio
        for quantity, cost in self._costs:
            if cost.surely_above(ratio):
                far = cost.surely_above(1 + _FAR * (ratio - 1))
                reason = f"{quantity}: engine steps take {cost.mean:.3f} of their time without training"
                return [Move(Direction.DOWN, reason)] if lever.lower(seen.now_s, 2 if far else 1) else []
        runs = paused or (seen.pulse is not None and seen.pulse.train_share > 0)
        known = self._bounds.relative(Quantity.INTER_TOKEN) or _tells_gaps(readings)
        clear = known and _all_clear(readings) and all(self._bears_more(cost) for _, cost in self._costs)
        return [Move(Direction.UP, "head-room")] if runs and _rises(lever, seen.now_s, clear=clear) else []

    def _bears_more(self, cost: Slowdown) -> bool:
        """Whether the next rung is within the ratio, if it costs as much more as it takes more of the GPU."""
        level = self._training.level
        if cost.mean is None or level == self._training.top:
            return False
        present, following = (pace.num_sms * pace.duty or pace.duty for pace in self._ladder[level : level + 2])
        growth = following / present if present else 1.0
        return 1 + (cost.mean - 1) * growth <= self._bounds.slo.ratio

    @property
    def _costs(self) -> list[tuple[Quantity, Slowdown]]:
        """What training costs, for each relative bound."""
        costs = self._step_costs.of_training
        return [(quantity, cost) for quantity, cost in costs.items() if self._bounds.relative(quantity)]

    def _steer_rollouts(self, seen: Observation) -> tuple[bool, list[Move]]:
        """Whether rollouts beyond the limit lose their slots, and the move."""
        lever, limit = self._rollouts, self._limit(seen)
        bearable = self._bearable
        if bearable is not None and seen.num_rollouts > max(_FAR * bearable, 1.0):
            return True, []

        def counts(row: _Measurement) -> bool:
            return row.middle_s >= lever.since_s and row.exposure.rolled

        readings = self._read(seen.now_s, counts)
        worst = _worst(readings)
        if worst is not None and worst.standing is not None and worst.standing >= Standing.OVER:
            self._violated_until_s = seen.now_s + _BLOCKED_S
            if seen.num_rollouts > limit:  # from a time with more room: not what this rung brought about
                lever.restart(seen.now_s)
                return True, []
            far = worst.standing is Standing.FAR_OVER
            if limit <= 1 or not lever.lower(seen.now_s, 2 if far else 1):
                self._no_rollouts_until_s = seen.now_s + _BLOCKED_S
                lever.restart(seen.now_s)
            return far, [Move(Direction.ROLLOUTS_DOWN, _reason(worst))]
        at_limit = 2 * seen.num_rollouts >= limit > 0
        rises = at_limit and _rises(lever, seen.now_s, clear=_tells_gaps(readings) and _all_clear(readings))
        return False, [Move(Direction.ROLLOUTS_UP, "head-room")] if rises else []

    def _limit(self, seen: Observation) -> int:
        if not seen.tuning or not self._loaded:
            return seen.num_free
        if seen.now_s < self._no_rollouts_until_s or seen.num_waiting:
            return 0
        # The lever belongs to the fixed bounds; where both are relative nothing is read that would move it.
        share = _ROLLOUT_SHARES[self._rollouts.level] if self._bounds.has_fixed else 1.0
        bearable = self._bearable
        return max(int(min(share * seen.num_free, math.inf if bearable is None else bearable)), 1)

    @property
    def _bearable(self) -> float | None:
        """Rollouts that add what a relative bound allows; None without such a bound."""
        if not self._bounds.has_relative:
            return None
        cost = self._step_costs.of_rollout
        return 1.0 if cost is None else (self._bounds.slo.ratio - 1) / cost

    @property
    def _loaded(self) -> bool:
        """Whether the newest tick saw a live request, or one shortly before."""
        return self._before_s is not None and self._before_s - self._last_live_s < _LINGER_S


def _worst(readings: Sequence[Reading]) -> Reading | None:
    judged = [reading for reading in readings if reading.standing is not None]
    return max(judged, key=lambda reading: reading.standing or Standing.CLEAR, default=None)


def _rises(lever: Lever, now_s: float, *, clear: bool) -> bool:
    """True when the lever went up."""
    if clear:
        return lever.rise(now_s)
    lever.keep()
    return False


def _tells_gaps(readings: Sequence[Reading]) -> bool:
    """Whether the time between tokens is known, and its bound."""
    return any(reading.quantity is not Quantity.TTFT and reading.standing is not None for reading in readings)


def _all_clear(readings: Sequence[Reading]) -> bool:
    return all(reading.standing in (None, Standing.CLEAR) for reading in readings)


def _reason(reading: Reading) -> str:
    bound_ms = (reading.bound_s or 0.0) * 1000
    return f"{reading.quantity} p99 of {reading.value_s * 1000:.1f} ms, bound {bound_ms:.1f} ms"
