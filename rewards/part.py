"""What a rule sees and says. A rule yields one named part of the reward, in [0, 1] with 1 as good."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.brief import Register
from rewards.score import Sample, Ungradable


@dataclass(frozen=True, slots=True)
class RuleInput:
    """One reply with what the tenant's settings add to its brief."""

    sample: Sample
    brand_terms: Sequence[str] = ()
    banned_terms: Sequence[str] = ()
    """Beside the brief's own forbidden terms."""
    address: Register | None = None
    """How the tenant addresses readers; a brief's own wish goes before it."""


class Rule(Protocol):
    """A judge made of plain code."""

    @property
    def name(self) -> str:
        """The part's name in `rewards.weights`."""
        ...

    def judge(self, given: RuleInput) -> float | Ungradable | None:
        """The part in [0, 1]; None when it does not apply to the brief; Ungradable when it does but cannot be told."""
        ...
