"""Two sides compared, language by language and measure by measure.

    harm        the interval excludes 0 on the worse side, and the difference itself is beyond what is allowed
    sound       the interval excludes every difference beyond what is allowed (non-inferiority)
    open        neither, so far

The error rate is shared out evenly over languages and measures (Bonferroni), so it bounds the probability that a
candidate which is no worse in any of them is ever found harmful.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.canary.config import CanaryConfig
from service.canary.sequence import difference
from service.canary.tally import Measure, Side

MIN_LOOK = 20
"""Values of each side before a measure is looked at: below, a mean is not close to normal."""
MIN_GROUPS = 5
"""People (requests, where none is named) of each side before it is: below, how they vary is not known."""


class Finding(StrEnum):
    """What a comparison says so far."""

    HARM = "harm"
    SOUND = "sound"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure in one language. ``harm`` counts what is worse as positive, whichever way the measure points."""

    language: str
    measure: Measure
    num_candidate: int
    num_stable: int
    candidate_mean: float
    stable_mean: float
    harm: float
    lower: float
    upper: float
    allowed: float
    finding: Finding

    @property
    def sentence(self) -> str:
        """For people: ``reward in de is 0.210 worse (0.120 to 0.300), allowed 0.100``."""
        return (
            f"{self.measure.value} in {self.language} is {self.harm:.3f} worse "
            f"({self.lower:.3f} to {self.upper:.3f}), allowed {self.allowed:g}"
        )


@dataclass(frozen=True, slots=True)
class Rules:
    """How much worse a candidate may be, by measure, and how sure a finding must be."""

    allowed: Mapping[Measure, float]
    alpha: float
    """Of each single interval."""

    @classmethod
    def of(cls, config: CanaryConfig, num_languages: int, measures: Sequence[Measure] = tuple(Measure)) -> "Rules":
        """The rules of a configuration for that many languages."""
        allowed = {
            Measure.REWARD: config.max_reward_drop,
            Measure.CONTRACT_FAILURES: config.max_contract_failure_rise,
            Measure.FEEDBACK: config.max_feedback_drop,
            Measure.FAILURES: config.max_failure_rise,
            Measure.LATENCY: math.log(config.max_latency_ratio),
        }
        chosen = {measure: allowed[measure] for measure in measures}
        return cls(chosen, config.error_rate / (max(num_languages, 1) * len(chosen)))

    def compare(self, candidate: Side, stable: Side, languages: Sequence[str]) -> list[Difference]:
        """Every measure of which both sides have enough values."""
        return [
            found
            for language in languages
            for measure in self.allowed
            if (found := self._difference(candidate, stable, language, measure)) is not None
        ]

    def _difference(self, candidate: Side, stable: Side, language: str, measure: Measure) -> Difference | None:
        ours, theirs = candidate.get(language, measure), stable.get(language, measure)
        if min(ours.num, theirs.num) < MIN_LOOK or min(ours.num_groups, theirs.num_groups) < MIN_GROUPS:
            return None
        allowed = self.allowed[measure]
        between = difference(ours, theirs, scale=2 * allowed, alpha=self.alpha)
        harm, lower, upper = between.difference, between.lower, between.upper
        if measure in _HIGHER_IS_BETTER:
            harm, lower, upper = -harm, -upper, -lower
        return Difference(
            language=language,
            measure=measure,
            num_candidate=ours.num,
            num_stable=theirs.num,
            candidate_mean=ours.mean,
            stable_mean=theirs.mean,
            harm=harm,
            lower=lower,
            upper=upper,
            allowed=allowed,
            finding=_finding(harm, lower, upper, allowed),
        )


_HIGHER_IS_BETTER = frozenset({Measure.REWARD, Measure.FEEDBACK})


def _finding(harm: float, lower: float, upper: float, allowed: float) -> Finding:
    if lower > 0 and harm > allowed:
        return Finding.HARM
    return Finding.SOUND if upper < allowed else Finding.OPEN
