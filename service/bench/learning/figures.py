"""Figures of exams and runs: means by language, what changed, with an interval over prompts. Plain arithmetic."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from rewards.substance import SUBSTANCE
from service.bench.learning.exam import GATE_FIDELITY, Graded
from service.bench.learning.fluency import FLUENCY

ALL = "all"
"""Stands for all languages together."""
PARTS = ("fidelity", GATE_FIDELITY, "repetition", "length", FLUENCY, SUBSTANCE)
METRICS = ("reward", *PARTS, "tokens", "truncated", "ungradable")
_NUM_RESAMPLES = 1000
_CONFIDENCE = 0.95

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one language before and after a run."""

    seed: int
    language: str
    metric: str
    before: float
    after: float

    @property
    def delta(self) -> float:
        return self.after - self.before


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Point:
    """One optimizer step on a curve."""

    at_s: float
    """Seconds since the run began."""
    num_samples: int
    """Replies sampled so far, those that were not trained on included."""
    reward: float
    """Mean over the step's graded replies."""
    parts: Mapping[str, float]


def figures(replies: Sequence[Graded]) -> dict[str, float]:
    """Means of METRICS; one that no reply has is absent. `reward` is over what could be graded."""
    found: dict[str, float] = {}
    for metric in METRICS:
        values = [value for reply in replies if (value := value_of(reply, metric)) is not None]
        if values:
            found[metric] = fmean(values)
    return found


def value_of(reply: Graded, metric: str) -> float | None:
    """One reply's value of a metric; None when it has none."""
    own: Mapping[str, Callable[[Graded], float | None]] = {
        "reward": lambda graded: graded.reward,
        "tokens": lambda graded: float(graded.num_tokens),
        "truncated": lambda graded: float(graded.truncated),
        "ungradable": lambda graded: float(graded.reward is None),
    }
    return own[metric](reply) if metric in own else reply.parts.get(metric)


def by_language(replies: Sequence[Graded]) -> dict[str, dict[str, float]]:
    """Figures of all replies under ``all``, then of each language."""
    languages = sorted({reply.language for reply in replies})
    return {
        ALL: figures(replies),
        **{code: figures([reply for reply in replies if reply.language == code]) for code in languages},
    }


def changes(seed: int, before: Sequence[Graded], after: Sequence[Graded]) -> list[Change]:
    """Every metric of all replies together and of each language, over the prompts that have it on both sides.

    Where replies stop being gradable, means over whatever is left on each side would say more of which those are than
    of what changed.
    """
    found = []
    for language in (ALL, *sorted({reply.language for reply in before} & {reply.language for reply in after})):
        for metric in METRICS:
            ours, theirs = (_by_prompt(_in_language(replies, language), metric) for replies in (before, after))
            shared = sorted(ours.keys() & theirs.keys())
            if shared:
                means = [fmean(side[prompt] for prompt in shared) for side in (ours, theirs)]
                found.append(Change(seed, language, metric, *means))
    return found


def paired_change(before: Sequence[Graded], after: Sequence[Graded], metric: str, *, seed: int = 0) -> Interval | None:
    """The mean change of a metric over prompts that have it on both sides; None when there is none.

    The interval is a percentile bootstrap over prompts, each with the mean of its replies: replies to one prompt are
    not independent.
    """
    ours, theirs = _by_prompt(after, metric), _by_prompt(before, metric)
    shared = sorted(ours.keys() & theirs.keys())
    if not shared:
        return None
    deltas: Values = np.array([ours[prompt] - theirs[prompt] for prompt in shared])
    draws = np.random.default_rng(seed).integers(deltas.size, size=(_NUM_RESAMPLES, deltas.size))
    low, high = np.quantile(deltas[draws].mean(axis=1), ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2))
    return Interval(float(deltas.mean()), float(low), float(high))


def smoothed(values: Sequence[float], window: int) -> list[float]:
    """Means over each value and the ones before it, ``window`` at most."""
    return [fmean(values[max(0, at - window + 1) : at + 1]) for at in range(len(values))]


def _in_language(replies: Sequence[Graded], language: str) -> list[Graded]:
    return [reply for reply in replies if language in (ALL, reply.language)]


def _by_prompt(replies: Sequence[Graded], metric: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for reply in replies:
        if (value := value_of(reply, metric)) is not None:
            values.setdefault(reply.prompt, []).append(value)
    return {prompt: fmean(own) for prompt, own in values.items()}
