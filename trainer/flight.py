"""Micro-batches on their way: each is started on a lane in its turn, and waited for later."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.graphs import Execution
from trainer.lanes import Lane, Lanes
from trainer.microbatch import Microbatch
from trainer.pacer import Pacer


@dataclass(frozen=True, slots=True)
class Flight:
    """A micro-batch that has been started."""

    lane: Lane
    num_tokens: int
    events: tuple[torch.cuda.Event, torch.cuda.Event] | None
    """Its begin and end on the lane's stream; None on a CPU, where it has ended already."""
    duration_s: float = 0.0

    @classmethod
    def launch(
        cls,
        execution: Execution,
        microbatch: Microbatch,
        lane: Lane,
        *,
        num_tokens: int,
        after: torch.cuda.Event | None,
    ) -> "Flight":
        """Start it, behind ``after``; ``num_tokens`` is what the pacer is told was trained on."""
        if lane.stream is None:
            started = time.perf_counter()
            execution.run(microbatch, lane)
            return cls(lane, num_tokens, None, time.perf_counter() - started)
        begin, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        if after is not None:
            lane.stream.wait_event(after)
        begin.record(lane.stream)
        execution.run(microbatch, lane)
        end.record(lane.stream)
        return cls(lane, num_tokens, (begin, end))

    @property
    def end(self) -> torch.cuda.Event | None:
        return None if self.events is None else self.events[1]

    def land(self, pacer: Pacer) -> None:
        """Wait for its end without holding Python's lock, and report it."""
        duration_s = self.duration_s
        if self.events is not None:
            self.events[1].synchronize()
            duration_s = self.events[0].elapsed_time(self.events[1]) / 1000
        pacer.ran(duration_s, num_sms=self.lane.num_sms, num_tokens=self.num_tokens)


class Interlude(Protocol):
    """Short work that may be done between two micro-batches."""

    def is_due(self) -> bool:
        """True while somebody waits for it: it then comes before the next micro-batch's turn."""
        ...

    def run(self) -> None:
        """Do some. Must not raise."""
        ...


def fly(
    execution: Execution,
    microbatches: Sequence[Microbatch],
    lanes: Lanes,
    pacer: Pacer,
    *,
    trains: bool,
    interlude: Interlude | None = None,
) -> None:
    """Run every micro-batch in its turn, after everything that was put on the whole device's lane so far.

    The next one is queued behind a running one, unless turns are rationed. ``trains`` says whether their positions
    count as trained on.
    """
    flights: deque[Flight] = deque()
    previous = None if lanes.whole.stream is None else lanes.whole.stream.record_event()
    for microbatch in microbatches:
        while len(flights) > (0 if pacer.rationed else 1):
            flights.popleft().land(pacer)
        lane = lanes.of_size(_turn(pacer, interlude))
        pacer.begins()
        num_tokens = microbatch.num_positions if trains else 0
        flights.append(Flight.launch(execution, microbatch, lane, num_tokens=num_tokens, after=previous))
        previous = flights[-1].end
    while flights:
        flights.popleft().land(pacer)


def _turn(pacer: Pacer, interlude: Interlude | None) -> int:
    """Wait for a turn, with interludes; returns the size of its lane in SMs."""
    if interlude is None:
        return pacer.turn()
    while True:
        interlude.run()
        num_sms = pacer.turn(interlude.is_due)
        if not interlude.is_due():
            return num_sms
