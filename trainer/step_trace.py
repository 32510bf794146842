"""When the engine's steps began and the learner's micro-batches ran, one by one: what a bench asks the pacer for.

Percentiles and means say how much training costs. Which steps pay, and beside what, only the steps themselves tell.
"""

from collections import deque

from msgspec import Struct

_MOST = 50_000
"""Some minutes of each; older ones are forgotten."""


class TracedStep(Struct, array_like=True, frozen=True):
    """One engine step."""

    began_s: float
    num_requests: int
    num_prompt_tokens: int
    follows: bool
    """The engine had something to run ever since the step before began, so that the time between them is that one's."""


class TracedMicrobatch(Struct, array_like=True, frozen=True):
    """One micro-batch of the learner. When it ended is when the host heard of it."""

    began_s: float
    ended_s: float
    num_sms: int
    cpu_s: float
    """What the learner's thread has computed since the micro-batch before it ended, all of it beside the engine's."""


class StepTrace(Struct, frozen=True):
    """A stretch of time, on the machine's monotonic clock, each list in its order."""

    steps: list[TracedStep]
    microbatches: list[TracedMicrobatch]


class Tracer:
    """Takes steps and micro-batches in. Not safe for threads."""

    def __init__(self) -> None:
        self._steps: deque[TracedStep] = deque(maxlen=_MOST)
        self._microbatches: deque[TracedMicrobatch] = deque(maxlen=_MOST)
        self._cpu_s: float | None = None

    def step(self, began_s: float, num_requests: int, num_prompt_tokens: int, *, follows: bool) -> None:
        """An engine step begins; see TracedStep."""
        self._steps.append(TracedStep(began_s, num_requests, num_prompt_tokens, follows))

    def microbatch(self, began_s: float, ended_s: float, num_sms: int, *, cpu_s: float) -> None:
        """A micro-batch has ended. ``cpu_s`` is the CPU time of the learner's thread so far."""
        computed_s = 0.0 if self._cpu_s is None else cpu_s - self._cpu_s
        self._cpu_s = cpu_s
        self._microbatches.append(TracedMicrobatch(began_s, ended_s, num_sms, computed_s))

    def trace(self) -> StepTrace:
        """All of it."""
        return StepTrace(list(self._steps), list(self._microbatches))
