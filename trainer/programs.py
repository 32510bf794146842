"""The programs of a set of settings, and how each is executed."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product

from trainer.graphs import Eager, Execution, Graphed
from trainer.lanes import Lanes
from trainer.microbatch import Microbatch
from trainer.objective import Scorer, ScoringProgram, UpdateProgram
from trainer.ports import LearnerSettings
from trainer.tally import Tally


@dataclass(frozen=True, slots=True)
class Programs:
    """What a step runs for each micro-batch."""

    update: Execution
    scoring: Execution | None
    """Before the first update of a step; None where nothing needs it."""

    def capture(self, blanks: Sequence[Microbatch], lanes: Lanes) -> None:
        """Capture graphs of these shapes on every lane.

        Args:
            blanks: padding throughout, one for each shape, the largest first: the smaller ones find room in its memory.
                They become the inputs of every lane's graphs, which run one after another.
        """
        graphed = [execution for execution in (self.update, self.scoring) if isinstance(execution, Graphed)]
        for execution, lane, blank in product(graphed, lanes.lanes, blanks):
            execution.warm_up(blank, lane)
        for execution, lane, blank in product(graphed, lanes.lanes, blanks):
            execution.capture(blank, lane)
        if lanes.whole.stream is not None:
            lanes.whole.stream.synchronize()


def make_programs(
    scorer: Scorer, settings: LearnerSettings, tally: Tally, as_base: Callable[[], AbstractContextManager[None]]
) -> Programs:
    """Those that a run of these settings needs: as graphs on a GPU, where shapes are captured, and eager on a CPU."""
    update = UpdateProgram(scorer, settings.objective, tally)
    needed = settings.scores_proximal or settings.scores_base
    scoring = ScoringProgram(scorer, as_base) if needed else None
    if scorer.model.device.type != "cuda":
        return Programs(Eager(update), None if scoring is None else Eager(scoring))
    graphed = Graphed(update)
    return Programs(graphed, None if scoring is None else Graphed(scoring, writes_scores=True, pool=graphed.pool))
