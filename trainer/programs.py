"""The programs of a set of settings, and how each is executed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product

from trainer.arena import Arena
from trainer.graphs import Eager, Execution, Graphed, Program
from trainer.lanes import Lanes
from trainer.microbatch import Microbatch
from trainer.objective import Scorer, ScoringProgram, UpdateProgram
from trainer.ports import LearnerSettings
from trainer.tally import Tally
from trainer.yielding import Wait, Yielding


@dataclass(frozen=True, slots=True)
class Programs:
    """What a step runs for each micro-batch."""

    update: Execution
    scoring: Execution | None
    """Before the first update of a step; None where nothing needs it."""

    def capture(self, blanks: Sequence[Microbatch], lanes: Lanes) -> Exception | None:
        """Capture graphs of these shapes on every lane, the largest first: the smaller ones find room in their memory.

        Returns what it failed with, without the frames that would keep the device's memory.

        Args:
            blanks: padding throughout, one for each shape. They become the inputs of every lane's graphs, which run one
                after another.
        """
        graphed = [execution for execution in (self.update, self.scoring) if isinstance(execution, Graphed)]
        largest_first = sorted(blanks, key=lambda blank: (blank.shape.positions, blank.shape.paths), reverse=True)
        places = list(product(graphed, largest_first, lanes.lanes))
        try:
            for execution, blank, lane in places:
                execution.warm_up(blank, lane)
            for execution, blank, lane in places:
                execution.capture(blank, lane)
            for execution, blank, lane in places:  # a graph's first launch takes the driver long
                execution.run(blank, lane)
                if lane.stream is not None:
                    lane.stream.synchronize()
        except Exception as error:  # noqa: BLE001 - raised by the caller, once the memory is given back
            return error.with_traceback(None)
        return None


def make_programs(
    scorer: Scorer,
    settings: LearnerSettings,
    tally: Tally,
    as_base: Callable[[], AbstractContextManager[None]],
    arena: Arena | None,
    wait: Wait | None,
) -> Programs:
    """Those that a run of these settings needs: as graphs in the arena, where shapes are captured, or eager without.

    ``wait`` lets the engine's steps go first, where the settings say so.
    """

    def yielding(program: Program) -> Program:
        return Yielding(program, wait) if wait is not None and settings.yield_to_engine else program

    update = yielding(UpdateProgram(scorer, settings.objective, tally))
    needed = settings.scores_proximal or settings.scores_base
    scoring = yielding(ScoringProgram(scorer, as_base)) if needed else None
    if arena is None:
        return Programs(Eager(update), None if scoring is None else Eager(scoring))
    graphed = Graphed(update, arena)
    return Programs(graphed, None if scoring is None else Graphed(scoring, arena, writes_scores=True))
