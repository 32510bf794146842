"""A run's policies as steps of one another, which their version numbers alone do not tell.

    began with 3 ─► 9 ─► 10 ─► (11, interrupted) ─► 12        4 to 8 were an earlier run's, which was given up
                                                              12 is three steps from 3, not nine

Numbers are handed out once, whatever becomes of the step that took one.
"""

from dataclasses import dataclass, replace

from agent.completion import VersionSpan


@dataclass(frozen=True, slots=True)
class Lineage:
    """The policy that a run began with, and the one that each of its steps made."""

    began_with: int
    made: tuple[int, ...] = ()
    """Oldest first, so rising; without those of steps that were interrupted."""

    @property
    def version(self) -> int:
        """The newest."""
        return self.made[-1] if self.made else self.began_with

    def with_step(self, version: int) -> "Lineage":
        """After one more step, which made ``version``."""
        return replace(self, made=(*self.made, version))

    def staleness(self, span: VersionSpan) -> int | None:
        """Optimizer steps between a completion's oldest token and the newest policy; None when that is older than the
        newest token: such a completion is of a policy that was rolled back, and no ancestor.

        What was sampled before the policy that the run began with is older by their distance in numbers, in which
        steps of other runs that were given up count too.
        """
        if span.last > self.version:
            return None
        return sum(version > span.first for version in self.made) + max(0, self.began_with - span.first)
