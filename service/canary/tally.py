"""Running sums of what one side of a comparison got, by language and measure: enough for means and variances."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum


class Measure(StrEnum):
    """What is compared."""

    REWARD = "reward"
    """The panel's, in [-1, 1], of sampled replies."""
    CONTRACT_FAILURES = "contract_failures"
    """1 for a reply that breaks the language contract, else 0; undetermined replies do not count."""
    FEEDBACK = "feedback"
    """People's, in [0, 1]."""
    FAILURES = "failures"
    """1 for a request that the engine failed, else 0."""
    LATENCY = "latency"
    """Natural logarithm of the seconds from the request's start to its last token."""


@dataclass(slots=True)
class Tally:
    """Sums of values."""

    num: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self.num += 1
        self.total += value
        self.squares += value * value

    @property
    def mean(self) -> float:
        """Mean of at least one value."""
        return self.total / self.num

    @property
    def variance(self) -> float:
        """Variance of one value, with one pseudo-value a whole unit away from the mean.

        Every measure has the unit as its scale. The pseudo-value keeps a side on which nothing has varied yet (no
        failure in thirty requests) from being taken for one that cannot vary.
        """
        around_mean = max(self.squares - self.total * self.total / self.num, 0.0)
        return (around_mean + 1.0) / (self.num + 1)

    def halve(self) -> None:
        """Let what came so far weigh half."""
        kept = (self.num // 2) / self.num
        self.num, self.total, self.squares = self.num // 2, self.total * kept, self.squares * kept


@dataclass(slots=True)
class Side:
    """What one side got."""

    num_replies: dict[str, int] = field(default_factory=dict)
    """By language: replies that were compared."""
    tallies: dict[str, dict[Measure, Tally]] = field(default_factory=dict)

    def count(self, language: str) -> None:
        """One more reply."""
        self.num_replies[language] = self.num_replies.get(language, 0) + 1

    def add(self, language: str, measure: Measure, value: float) -> None:
        """One more value."""
        self.tallies.setdefault(language, {}).setdefault(measure, Tally()).add(value)

    def put(self, language: str, measure: Measure, tally: Tally) -> None:
        """Take a tally that is kept elsewhere."""
        self.tallies.setdefault(language, {})[measure] = tally

    def get(self, language: str, measure: Measure) -> Tally:
        """A tally; an empty one where nothing came."""
        return self.tallies.get(language, {}).get(measure) or Tally()

    @property
    def num_total(self) -> int:
        """Replies in all languages."""
        return sum(self.num_replies.values())

    def forget_beyond(self, most: int) -> None:
        """Halve whatever has grown to twice ``most``: newer values then weigh more."""
        for tally in self._tallies():
            if tally.num >= 2 * most:
                tally.halve()

    def _tallies(self) -> Iterator[Tally]:
        for by_measure in self.tallies.values():
            yield from by_measure.values()
