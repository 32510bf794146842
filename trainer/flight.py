"""A micro-batch on its way: started on a lane, and waited for later."""

import time
from dataclasses import dataclass

import torch

from trainer.graphs import Execution
from trainer.lanes import Lane
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
        cls, execution: Execution, microbatch: Microbatch, lane: Lane, *, after: torch.cuda.Event | None
    ) -> "Flight":
        if lane.stream is None:
            started = time.perf_counter()
            execution.run(microbatch, lane)
            return cls(lane, microbatch.num_positions, None, time.perf_counter() - started)
        begin, end = (torch.cuda.Event(enable_timing=True, blocking=True) for _ in range(2))
        if after is not None:
            lane.stream.wait_event(after)
        begin.record(lane.stream)
        execution.run(microbatch, lane)
        end.record(lane.stream)
        return cls(lane, microbatch.num_positions, (begin, end))

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
