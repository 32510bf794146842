"""A confidence interval that may be looked at after every request, and acted upon at any look.

The mixture sequential probability ratio test with a normal mixture of variance tau^2 (Robbins 1970; Johari, Koomen,
Pekelis and Walsh, "Always Valid Inference: Continuous Monitoring of A/B Tests", Operations Research 70(3), 2022,
section 4) rejects a difference theta_0 once

    sqrt(V / (V + tau^2)) * exp(tau^2 (d - theta_0)^2 / (2 V (V + tau^2)))  >=  1 / alpha

with d the difference of two means and V its estimated variance. Solved for theta_0 it leaves an interval around d which
holds the true difference at all looks at once with probability 1 - alpha, for means that are close to normal.
"""

import math
from dataclasses import dataclass

from service.canary.tally import Tally


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference of two means, and where it lies."""

    difference: float
    lower: float
    upper: float


def difference(candidate: Tally, stable: Tally, *, scale: float, alpha: float) -> Interval:
    """How much higher the candidate's mean is.

    Args:
        candidate, stable: of at least one value each.
        scale: tau, the size of a difference that matters: the interval is narrowest where it tells such ones.
        alpha: probability that the interval misses the true difference at any look.
    """
    between = candidate.mean - stable.mean
    reach = radius(candidate.variance + stable.variance, scale, alpha)
    return Interval(between, between - reach, between + reach)


def radius(variance: float, scale: float, alpha: float) -> float:
    """Half the interval's width, for an estimate of this variance."""
    widened = variance + scale * scale
    return math.sqrt(variance * widened / scale**2 * math.log(widened / (variance * alpha * alpha)))
