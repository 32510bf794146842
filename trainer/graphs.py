"""How a micro-batch is executed: kernel by kernel, or as one CUDA graph for each shape and lane.

A graph is one launch instead of thousands, so the learner's thread leaves Python's lock to the engine. Graphs are
captured before the engine takes requests: a capture launches every kernel from Python, and what it needs of memory must
not be looked for beside traffic. A shape without a graph is executed kernel by kernel. All graphs share one arena,
since they run one after another and leave nothing in it. What they read and write outside of it (weights, gradient
sums, tallies) must stay at its address as long as the graphs live.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from trainer.arena import Arena
from trainer.lanes import Lane
from trainer.microbatch import Microbatch, Shape

Program = Callable[[Microbatch], None]
"""What is computed for a micro-batch (trainer.objective): writes in place, and waits for nothing."""


class Execution(Protocol):
    """Runs a program on a lane."""

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes that micro-batches should be padded to, where they fit."""
        ...

    def run(self, microbatch: Microbatch, lane: Lane) -> None:
        """Start a micro-batch on the lane's stream."""
        ...


@dataclass(frozen=True, slots=True)
class Eager:
    """Kernel by kernel."""

    program: Program
    shapes: tuple[Shape, ...] = ()

    def run(self, microbatch: Microbatch, lane: Lane) -> None:
        """See Execution.run."""
        with lane.active():
            self.program(microbatch)


@dataclass(frozen=True, slots=True)
class _Captured:
    graph: torch.cuda.CUDAGraph
    inputs: Microbatch
    pool: Any
    """Of the arena; lives as long as the graph."""


@dataclass(slots=True)
class Graphed:
    """As CUDA graphs where there is one. The learner's thread alone may use it."""

    program: Program
    arena: Arena
    writes_scores: bool = False
    """True when the micro-batch that is run is to get what the program wrote to the graph's."""
    _graphs: dict[tuple[int, Shape], _Captured] = field(default_factory=dict)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shapes that have a graph, on whichever lane."""
        return tuple({shape for _, shape in self._graphs})

    def run(self, microbatch: Microbatch, lane: Lane) -> None:
        """See Execution.run."""
        with lane.active():
            captured = self._graphs.get((lane.num_sms, microbatch.shape))
            if captured is None:
                self.program(microbatch)
            else:
                captured.inputs.fill(microbatch)
                captured.graph.replay()
                if self.writes_scores:
                    microbatch.take_scores(captured.inputs)

    def warm_up(self, microbatch: Microbatch, lane: Lane) -> None:
        """Run a shape once, so that kernels are compiled and workspaces made outside of its capture.

        ``microbatch`` is padding throughout, so running it adds nothing. Warm up every shape on every lane before the
        first capture: what a run takes is given back, what a capture takes is not.
        """
        with lane.active():
            self.program(microbatch)
            if lane.stream is not None:
                lane.stream.synchronize()
            torch.cuda.empty_cache()

    def capture(self, microbatch: Microbatch, lane: Lane) -> None:
        """Capture a shape on a lane, where it has been warmed up; the graph keeps ``microbatch`` as its inputs."""
        if (lane.num_sms, microbatch.shape) in self._graphs:
            return
        pool = self.arena.pool()
        with lane.active():
            graph = torch.cuda.CUDAGraph()
            graph.capture_begin(pool=pool.id, capture_error_mode="thread_local")
            try:
                self.program(microbatch)
            finally:
                graph.capture_end()
        self.arena.settle(pool)
        self._graphs[lane.num_sms, microbatch.shape] = _Captured(graph, microbatch, pool)
