"""When the next micro-batch may run, and on how much of the GPU.

    engine's thread        begin_step ─ end_step            "the engine is busy", and how long its steps take (the end
                                                            is known when what the device sampled has been read)
    learner's thread       turn() ─► size ─► micro-batch ─► ran(…)
    front process          exchange(Pace) ─► Pulse

While the engine is idle every turn is granted at once and for the whole GPU. While it is busy a turn gets the Pace's
partition, and waits so that micro-batches fill only the Pace's duty of the time. A micro-batch is never interrupted:
whoever wants a quick reaction makes micro-batches short.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from trainer.matched_steps import MatchedSteps
from trainer.pace import Pace, Pulse
from trainer.step_trace import StepTrace, Tracer

_REST_AFTER_S, _IDLE_AFTER_S = 0.05, 1.0
"""When no step has run for this long the engine had nothing to run, so that the time to its next step is not a slow
step's; and it is idle, which is longer: a request may come any moment, and its first token would wait for what is given
away. Who knows that no live request is there says so by the Pace."""
_GAP_LIMIT_S = 2.0
"""A longer time between two steps is not a slow step: the engine had nothing to run."""
_POLL_S = 0.01
_MAX_GAPS = 8192
_CALM_STEPS, _CALM_EVERY, _CALM_OFTEN = 12, 300, 60
"""So many steps without training in so many, for a Pace that compares; the last while little is known."""
_LARGE_ERROR = 0.02
"""Of what steps are expected to take: little is known then."""
_AFTER_S = 2.0
"""The learner counts as resting when nothing of it has run for this long."""


class Pacer:
    """Shared by the engine's thread and the learner's. Every method returns at once except ``turn``."""

    def __init__(
        self,
        sizes: tuple[int, ...],
        reason: str | None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """``sizes`` are those of the lanes, ascending; empty where there are no partitions."""
        self._sizes, self._reason = sizes, reason
        self._clock, self._cpu_clock, self._sleep = clock, cpu_clock, sleep
        self._cpu_s = cpu_clock()
        self._lock = threading.Lock()
        self._pace = Pace(num_sms=sizes[len(sizes) // 2] if sizes else 0, duty=1.0)
        self._num_stepping = 0
        """Steps in hand: the engine begins the next one before it reads what the last one sampled."""
        self._last_start: float | None = None
        self._last_end = float("-inf")
        self._debt_until = float("-inf")
        self._num_running, self._running_since = 0, 0.0
        self._last_ran = float("-inf")
        self._resting_since: float | None = None
        """Since when the learner waits for a turn with nothing on the device."""
        self._matched = MatchedSteps()
        self._size = (0, 0)
        self._num_calm, self._num_since_calm, self._calm_every = 0, 0, _CALM_OFTEN
        self._tracer: Tracer | None = None
        self._reset(clock())

    def begin_step(self, num_requests: int = 0, num_prompt_tokens: int = 0) -> None:
        """The engine starts a step that has something to run: so many requests, and tokens of their prompts."""
        now = self._clock()
        with self._lock:
            last = self._last_start
            follows = last is not None and not self._rests(now) and now - last < _GAP_LIMIT_S
            if last is not None and follows:
                self._note_gap(last, now)
            self._last_start = now
            self._size = num_requests, num_prompt_tokens
            self._num_stepping += 1
            if self._tracer is not None:
                self._tracer.step(now, num_requests, num_prompt_tokens, follows=follows)

    def _note_gap(self, began: float, ended: float) -> None:
        """From one step's begin to the next one's."""
        self._gaps.append(ended - began)
        self._busy_s += ended - began
        calm = self._was_calm(began)
        num_requests, num_prompt_tokens = self._size
        self._matched.add(ended - began, num_requests=num_requests, num_prompt_tokens=num_prompt_tokens, calm=calm)
        self._num_calm = self._num_calm + 1 if calm else 0
        self._num_since_calm = 0 if self._num_calm >= _CALM_STEPS else self._num_since_calm + 1

    def _was_calm(self, began: float) -> bool:
        """Whether nothing of the learner has run since then, nor runs."""
        if self._num_running:
            return False
        if self._resting_since is not None:
            return self._resting_since <= began
        return began - self._last_ran > _AFTER_S

    def end_step(self) -> None:
        """The oldest step in hand is done, on the device too."""
        with self._lock:
            self._num_stepping = max(self._num_stepping - 1, 0)
            self._last_end = self._clock()

    def forget_steps(self) -> None:
        """No step is in hand: those that were begun are never ended."""
        with self._lock:
            self._num_stepping = 0
            self._last_start = None

    def waited(self, duration_s: float) -> None:
        """The engine's thread has waited for the device."""
        with self._lock:
            self._wait_s += duration_s

    def turn(self, stopped: Callable[[], bool] = lambda: False) -> int:
        """Wait until the next micro-batch may run; returns the size of its lane in SMs.

        ``stopped`` ends the wait early.
        """
        while True:
            now = self._clock()
            with self._lock:
                if self._idle(now):
                    self._resting_since = None
                    return self._sizes[-1] if self._sizes else 0
                granted = self._pace.duty > 0 and now >= self._debt_until and not self._owes_calm()
                if granted or stopped():
                    self._resting_since = None
                    return self._pace.num_sms
                if self._resting_since is None and not self._num_running:
                    self._resting_since = now
            self._sleep(_POLL_S)

    def _owes_calm(self) -> bool:
        """Whether the engine shall have some steps for itself, to compare others with."""
        return self._pace.compares and self._num_since_calm >= self._calm_every

    @property
    def rationed(self) -> bool:
        """True when the engine is busy and the next turn may have to wait, whose rest shall find the device empty."""
        with self._lock:
            return (self._pace.duty < 1 or self._owes_calm()) and not self._idle(self._clock())

    def is_flying(self) -> bool:
        """True while a micro-batch is on the device."""
        with self._lock:
            return self._num_running > 0

    def begins(self) -> None:
        """A micro-batch has been started."""
        with self._lock:
            self._resting_since = None
            if self._num_running == 0:
                self._running_since = self._clock()
            self._num_running += 1

    def ran(self, duration_s: float, *, num_sms: int, num_tokens: int) -> None:
        """The oldest started micro-batch has ended and took this long. Below a duty of 1 the next one has to wait."""
        with self._lock:
            now = self._clock()
            duty = min(max(self._pace.duty, 0.01), 1.0)
            self._debt_until = now + duration_s * (1 / duty - 1)
            self._train_s += now - self._running_since
            self._running_since = self._last_ran = now
            self._num_running -= 1
            self._num_microbatches += 1
            self._num_tokens += num_tokens
            self._num_sms = num_sms
            if self._tracer is not None:
                self._tracer.microbatch(now - duration_s, now, num_sms, cpu_s=self._cpu_clock())

    def trace(self, *, on: bool) -> StepTrace:
        """What was traced since this was last called with ``on``; with it, a new trace begins."""
        with self._lock:
            before, self._tracer = self._tracer or Tracer(), Tracer() if on else None
        return before.trace()

    def exchange(self, pace: Pace) -> Pulse:
        """Take the controller's order; returns what was measured since the last one. For the engine's thread."""
        now, cpu_s = self._clock(), self._cpu_clock()
        with self._lock:
            if pace.duty > self._pace.duty:
                self._debt_until = float("-inf")
            self._pace = pace
            if self._num_running:
                self._train_s += now - self._running_since
                self._running_since = now
            pulse = self._pulse(now, cpu_s - self._cpu_s)
            self._cpu_s = cpu_s
            self._reset(now)
        return pulse

    def _rests(self, now: float, after_s: float = _REST_AFTER_S) -> bool:
        return not self._num_stepping and now - self._last_end > after_s

    def _idle(self, now: float) -> bool:
        return self._rests(now, _IDLE_AFTER_S)

    def _reset(self, now: float) -> None:
        self._since = now
        self._gaps: deque[float] = deque(maxlen=_MAX_GAPS)
        self._busy_s, self._train_s, self._wait_s = 0.0, 0.0, 0.0
        self._num_microbatches, self._num_tokens, self._num_sms = 0, 0, 0

    def _pulse(self, now: float, cpu_s: float) -> Pulse:
        matched = self._matched.take()
        if matched.steps_s:
            known = matched.expected_s and max(matched.error, matched.prompt_error) <= _LARGE_ERROR
            self._calm_every = _CALM_EVERY if known else _CALM_OFTEN
        duration_s = max(now - self._since, 1e-9)
        gaps = sorted(self._gaps)
        return Pulse(
            duration_s=duration_s,
            num_engine_steps=len(gaps),
            step_p50_ms=_quantile(gaps, 0.5) * 1000,
            step_p99_ms=_quantile(gaps, 0.99) * 1000,
            step_max_ms=_quantile(gaps, 1.0) * 1000,
            busy_share=min(self._busy_s / duration_s, 1.0),
            engine_cpu_s=cpu_s,
            device_wait_s=self._wait_s,
            train_share=min(self._train_s / duration_s, 1.0),
            num_microbatches=self._num_microbatches,
            num_train_tokens=self._num_tokens,
            num_sms=self._num_sms,
            partition_sizes=self._sizes,
            partition_reason=self._reason,
            matched=matched,
        )


def _quantile(ordered: list[float], share: float) -> float:
    """The smallest value that at least ``share`` of the values do not exceed; 0 without values."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]
