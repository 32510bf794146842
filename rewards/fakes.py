"""Working stand-ins for this package's ports, for tests and for trying a configuration."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from agent.errors import StoreError
from rewards.preference import PreferencePair
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
        self.judge = judge
        self.name = name
        self.revision = revision
        self.failure: Exception | None = None
        self.late = False
        self.batches: list[tuple[Sample, ...]] = []

    def score(self, samples: Sequence[Sample]) -> Sequence[Score | Ungradable | None]:
        """See RewardModel.score."""
        self.batches.append(tuple(samples))
        if self.failure is not None:
            raise self.failure
        return [self._answer(self.judge(sample)) for sample in samples]

    def score_live(self, samples: Sequence[Sample]) -> Sequence[Score | Ungradable | None]:
        """See SharedRewardModel.score_live."""
        return [None] * len(samples) if self.late else self.score(samples)

    def _answer(self, value: float | Ungradable | None) -> Score | Ungradable | None:
        return Score(value, f"{self.name}@{self.revision}") if isinstance(value, float | int) else value


class FakePanel(FakeRewardModel):
    """Judges by a function, as its one part ``fake``, which weighs 1."""

    def weights(self, tenant: str, language: str) -> Mapping[str, float]:
        """See Panel.weights."""
        return {"fake": 1.0}

    def score(self, samples: Sequence[Sample]) -> Sequence[Score | Ungradable]:
        """See Panel.score."""
        absent = Ungradable("no part that applies has a weight", f"{self.name}@{self.revision}")
        return [absent if answer is None else answer for answer in super().score(samples)]

    def _answer(self, value: float | Ungradable | None) -> Score | Ungradable | None:
        if not isinstance(value, float | int):
            return value
        return Score(value, f"{self.name}@{self.revision}", {"fake": value})


class FakePreferencePairs:
    """``rewards.preference.PreferencePairs`` out of a list; ``failure`` is raised instead while it is set."""

    def __init__(self, pairs: Iterable[PreferencePair] = ()) -> None:
        self.all = list(pairs)
        self.failure: StoreError | None = None

    async def pairs(self, language: str) -> list[PreferencePair]:
        """See PreferencePairs.pairs; no caps."""
        if self.failure is not None:
            raise self.failure
        return [pair for pair in self.all if pair.brief.language == language]
