"""Running sums of what one side of a comparison got, by language and measure: enough for means and their variances.

Sides are drawn by person, not by request, and what one person asks for goes well or badly together: someone whose
briefs always fail is one bad draw, not twenty. So a person's values count as a group, and the variance of a mean m is
that of its groups, of sums S_g and sizes n_g (Cochran 1977, Sampling Techniques, section 9A.2; Zeger and Liang 1986's
sandwich for a mean):

    V = sum over groups (S_g - m n_g)^2 / n^2
      = (sum S_g^2 - 2 m sum S_g n_g + m^2 sum n_g^2) / n^2         n = sum n_g

Where every value is a group of its own that is the usual s^2 / n.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

_MAX_GROUPS = 2_000
"""Groups that may still grow; beyond, later values of all of them begin new ones. Among so many people none matters."""


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


@dataclass
class Tally:
    """Sums of values. What is kept in the store are the sums: a group that grows after a restart counts as two."""

    num: int = 0
    total: float = 0.0
    squares: float = 0.0
    """sum S_g^2."""
    crossed: float = 0.0
    """sum S_g n_g - total, which is 0 as long as every value is a group of its own."""
    sized: float = 0.0
    """sum n_g^2 - num, likewise."""

    def __post_init__(self) -> None:
        self._groups: dict[str, tuple[float, int]] = {}

    def add(self, value: float, group: str | None = None) -> None:
        """One more value; without a group it is one of its own."""
        before, size = self._groups.get(group, (0.0, 0)) if group is not None else (0.0, 0)
        self.num += 1
        self.total += value
        self.squares += value * (2 * before + value)
        self.crossed += before + value * size
        self.sized += 2 * size
        if group is not None:
            if len(self._groups) >= _MAX_GROUPS:
                self._groups.clear()
            self._groups[group] = before + value, size + 1

    @property
    def mean(self) -> float:
        """Mean of at least one value."""
        return self.total / self.num

    @property
    def num_groups(self) -> float:
        """As many groups of equal sizes would tell as much: n^2 / sum n_g^2."""
        return self.num * self.num / (self.num + self.sized)

    @property
    def variance(self) -> float:
        """Variance of the mean, with one pseudo-value a whole unit away from it.

        Every measure has the unit as its scale. The pseudo-value keeps a side on which nothing has varied yet (no
        failure in thirty requests) from being taken for one that cannot vary.
        """
        crosses, sizes = self.total + self.crossed, self.num + self.sized
        around_mean = max(self.squares - 2 * self.mean * crosses + self.mean * self.mean * sizes, 0.0)
        return (around_mean + 1.0) / (self.num * (self.num + 1))

    def halve(self) -> None:
        """Let what came so far weigh half."""
        kept = (self.num // 2) / self.num
        self.num, self.total, self.squares = self.num // 2, self.total * kept, self.squares * kept
        self.crossed, self.sized = self.crossed * kept, self.sized * kept
        self._groups.clear()


@dataclass(slots=True)
class Side:
    """What one side got."""

    num_replies: dict[str, int] = field(default_factory=dict)
    """By language: replies that were compared."""
    tallies: dict[str, dict[Measure, Tally]] = field(default_factory=dict)

    def count(self, language: str) -> None:
        """One more reply."""
        self.num_replies[language] = self.num_replies.get(language, 0) + 1

    def add(self, language: str, measure: Measure, value: float, group: str | None = None) -> None:
        """One more value, of a person where one is named."""
        self.tallies.setdefault(language, {}).setdefault(measure, Tally()).add(value, group)

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
