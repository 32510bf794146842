"""Times of the engine's steps, by what ran beside them: the gap from a step's begin to the next one's, where the engine
had something to run all the time."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.bench.statistics import Spread, spread
from trainer.step_trace import StepTrace

_NUM_LONGEST = 10

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Gaps:
    """Gaps of like steps, in milliseconds; None where there are none."""

    calm: Spread | None
    """While no micro-batch ran."""
    beside: Spread | None
    """While one ran, for a part of it at the least."""


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The engine's steps in a stretch of time."""

    decoding: Gaps
    """Of steps without prompt tokens."""
    prompts: Gaps
    longest: list[tuple[float, bool]]
    """The longest gaps in milliseconds, and whether each was beside a micro-batch."""
    learner_cpu_share: float
    """Of the time in which the learner's thread computed: what it has Python's lock for, at most."""


def step_figures(trace: StepTrace, began_s: float, ended_s: float) -> StepFigures:
    """Those of the steps that began in a window."""
    begins = np.array([step.began_s for step in trace.steps])
    has_prompts = np.array([step.num_prompt_tokens > 0 for step in trace.steps], np.bool_)
    gaps, has_prompts = np.diff(begins), has_prompts[:-1]
    beside = _overlap(begins[:-1], begins[1:], [(row.began_s, row.ended_s) for row in trace.microbatches])
    follows = np.array([step.follows for step in trace.steps[1:]], np.bool_)
    counts = (begins[:-1] >= began_s) & (begins[1:] <= ended_s) & follows

    def of(chosen: Flags) -> Gaps:
        return Gaps(*(spread(gaps[counts & chosen & ran] * 1000) for ran in (~beside, beside)))

    learner_cpu_s = sum(row.cpu_s for row in trace.microbatches if began_s <= row.ended_s < ended_s)
    longest = [place for place in np.argsort(-gaps, kind="stable") if counts[place]][:_NUM_LONGEST]
    return StepFigures(
        of(~has_prompts),
        of(has_prompts),
        [(float(gaps[place]) * 1000, bool(beside[place])) for place in longest],
        learner_cpu_s / (ended_s - began_s),
    )


def _overlap(
    begins: npt.NDArray[np.float64], ends: npt.NDArray[np.float64], others: Iterable[tuple[float, float]]
) -> Flags:
    """Which of some stretches, ascending, overlap any of the others."""
    found = np.zeros(len(begins), np.bool_)
    for began_s, ended_s in others:
        found[np.searchsorted(ends, began_s, "right") : np.searchsorted(begins, ended_s, "left")] = True
    return found
