"""Statistics of paired differences: an interval for what is to be expected, and a test for what is worse.

    d_i = candidate - baseline on the same prompt with the same seed, turned so that below 0 is worse

Both are about prompts that were not asked, since replies to one prompt are not independent. The interval resamples
prompts, each with the mean of its replies. The test is for the promise that a policy that does equally well is seldom
blocked: one that does better on some prompts and worse on others, alike on the whole, may have any prompt's difference
turned round, so that their signs are coin tosses. That is exact for differences that are symmetric around 0, as they
are between equal policies, whatever else their distribution, and however few there are.

Few prompts have few signs: of three, one in eight looks as bad as all falling, and nothing could be found out. There
every pair of replies is swapped by itself, which is exact between equal policies alone: with many replies to three
prompts the test finds that something changed, and blocks what fell by it.

Knows nothing of languages, policies or what is measured.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

_NUM_RESAMPLES = 2000
_NUM_FLIPS = 4000
_POWER = 0.8


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference with its two-sided interval."""

    mean: float
    low: float
    high: float


def bootstrap(differences: Values, *, confidence: float, seed: int) -> Interval:
    """Percentile interval of the mean of one difference per prompt.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13. It is too narrow for a handful of
    prompts, and has no width where all differences are equal.

    Args:
        differences: [prompts], at least one.
    """
    draws = np.random.default_rng(seed).integers(differences.size, size=(_NUM_RESAMPLES, differences.size))
    tail = (1 - confidence) / 2
    low, high = np.quantile(differences[draws].mean(axis=1), (tail, 1 - tail))
    return Interval(float(differences.mean()), float(low), float(high))


def lower_bound(groups: Sequence[Values], *, level: float, seed: int) -> float:
    """One-sided lower bound of the mean of the groups' means, each resampled by itself; see bootstrap."""
    rng = np.random.default_rng(seed)
    draws = [row[rng.integers(row.size, size=(_NUM_RESAMPLES, row.size))].mean(axis=1) for row in groups]
    return float(np.quantile(np.mean(draws, axis=0), level))


def chances(sheets: Sequence[Values], *, seed: int) -> list[Values]:
    """For every column, the chance that any column of any sheet looks as bad between policies that do equally well.

    These are p-values adjusted for all columns together: by the largest of their statistics under random swaps of whole
    draws, which keeps what columns have in common. Source: Westfall and Young 1993, Resampling-Based Multiple Testing
    (single-step maxT), with the statistic sum(d) / sqrt(sum(d^2)), whose denominator no swap changes.

    Args:
        sheets: [draws, columns] each, of differences of which below 0 is worse; NaN where a draw has none.

    Returns:
        [columns] for each sheet, in (0, 1]; 1 where a column has no difference but 0.
    """
    rng = np.random.default_rng(seed)
    largest = np.full(_NUM_FLIPS, -np.inf)
    observed: list[Values] = []
    for sheet in sheets:
        scaled = _scaled(sheet)
        observed.append(-scaled.sum(axis=0))
        signs = rng.integers(0, 2, size=(_NUM_FLIPS, len(scaled)), dtype=np.int8) * 2.0 - 1.0
        if scaled.size:
            largest = np.maximum(largest, (signs @ scaled).max(axis=1))
    return [
        np.array([_share_at_least(value, largest) if value > 0 else 1.0 for value in statistics])
        for statistics in observed
    ]


def prompts_needed(differences: Values, *, margin: float, confidence: float, least: int) -> int:
    """Prompts after which four equal policies of five would be shown to be within ``margin``, by a normal approximation
    with these differences' deviation; ``least`` or more."""
    if differences.size < 2 or margin <= 0:
        return least
    normal = NormalDist()
    reach = normal.inv_cdf((1 + confidence) / 2) + normal.inv_cdf(_POWER)
    return max(least, math.ceil((reach * float(differences.std(ddof=1)) / margin) ** 2))


def _scaled(sheet: Values) -> Values:
    """Columns of length 1, with 0 for what is missing; all 0 where nothing differs."""
    filled = np.nan_to_num(sheet, nan=0.0)
    lengths = np.sqrt((filled**2).sum(axis=0))
    scaled: Values = filled / np.where(lengths > 0, lengths, 1.0)
    return scaled


def _share_at_least(value: float, largest: Values) -> float:
    """The observation counts as one of the flips, so that no chance is 0."""
    return float((1 + np.sum(largest >= value - 1e-9)) / (1 + len(largest)))
