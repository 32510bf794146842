"""How many replies one brief is answered with, and which of them the caller gets.

    n alone          n samples, the first is served                       the others are alternatives
    best_of          best_of samples, ranked, the best is served          the next n - 1 are alternatives

All samples are journalled in one episode: siblings of one prompt, which tuning need not sample again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.completion import Sampling
from agent.errors import InvalidBrief

MAX_SAMPLES = 8


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Raises InvalidBrief when a number is out of its bounds; ``n`` is at most ``best_of``."""

    n: int = 1
    """Texts that the caller gets."""
    best_of: int | None = None
    """Replies that are sampled and ranked; None ranks none."""

    def __post_init__(self) -> None:
        if not 1 <= self.n <= MAX_SAMPLES:
            raise InvalidBrief("n", f"must be between 1 and {MAX_SAMPLES}, got {self.n}")
        if self.best_of is None:
            return
        if not 2 <= self.best_of <= MAX_SAMPLES:
            raise InvalidBrief("best_of", f"must be between 2 and {MAX_SAMPLES}, got {self.best_of}")
        if self.n > self.best_of:
            raise InvalidBrief("n", f"must not exceed best_of, got {self.n} > {self.best_of}")

    @property
    def num_samples(self) -> int:
        """Replies that are sampled."""
        return self.best_of or self.n

    def check(self, sampling: Sampling) -> None:
        """Raises InvalidBrief when all samples would be the same one."""
        if self.num_samples > 1 and sampling.temperature == 0:
            name, number = ("best_of", self.best_of) if self.best_of else ("n", self.n)
            raise InvalidBrief(name, f"needs a temperature above 0, which makes replies differ, got {number} at 0")


ONE = Alternatives()
"""One sample, and that is served."""


def best_first(values: Sequence[float | None]) -> list[int]:
    """Indices by falling value. Equals keep their order, None comes last."""
    return sorted(range(len(values)), key=lambda index: _descending(values[index]))


def _descending(value: float | None) -> tuple[bool, float]:
    return (True, 0.0) if value is None else (False, -value)
