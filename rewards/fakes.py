"""Working stand-ins for this package's ports, for tests and for trying a configuration."""

from collections.abc import Callable, Sequence

from rewards.score import Sample, Score, Ungradable


class FakeRewardModel:
    """Judges by a function and records what it was asked; ``failure`` is raised instead while it is set.

    Also a SharedRewardModel: live requests get the same judgement, or none while it is ``late``.
    """

    def __init__(
        self,
        judge: Callable[[Sample], float | Ungradable | None] = lambda sample: 0.5,
        *,
        name: str = "fake",
        revision: str = "1",
    ) -> None:
        self._judge = judge
        self.name = name
        self.revision = revision
        self.failure: Exception | None = None
        self.late = False
        self.batches: list[tuple[Sample, ...]] = []

    def score(self, samples: Sequence[Sample]) -> list[Score | Ungradable | None]:
        """See RewardModel.score."""
        self.batches.append(tuple(samples))
        if self.failure is not None:
            raise self.failure
        return [self._answer(self._judge(sample)) for sample in samples]

    def score_live(self, samples: Sequence[Sample]) -> list[Score | Ungradable | None]:
        """See SharedRewardModel.score_live."""
        return [None] * len(samples) if self.late else self.score(samples)

    def _answer(self, value: float | Ungradable | None) -> Score | Ungradable | None:
        return Score(value, f"{self.name}@{self.revision}") if isinstance(value, float | int) else value
