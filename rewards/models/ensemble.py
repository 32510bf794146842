"""A part of the reward that models judge: one judge, or several whose disagreement costs."""

import time
from collections.abc import Sequence

import structlog

from agent.errors import ColoqError
from agent.language import primary_code
from rewards.models.calibration import pessimistic
from rewards.models.judge import Judge
from rewards.score import Sample, Score, Ungradable

log = structlog.get_logger(__name__)


class ModelEnsemble:
    """A SharedRewardModel over judges. Judges that do not know a language do not vote on it."""

    revision = "1"

    def __init__(
        self,
        name: str,
        judges: Sequence[Judge],
        *,
        penalty: float,
        languages: Sequence[str] = (),
        ranking_timeout_s: float = 1.0,
    ) -> None:
        """Judge by at least one judge.

        Args:
            penalty: k of the mean less k deviations.
            languages: ISO 639-1 codes; empty for all.
            ranking_timeout_s: what a live request may wait.
        """
        self.name = name
        self.judges = tuple(judges)
        self._penalty = penalty
        self._languages = frozenset(languages)
        self._ranking_timeout_s = ranking_timeout_s

    def score(self, samples: Sequence[Sample]) -> list[Score | Ungradable | None]:
        """See RewardModel.score. Waits as long as it takes.

        Raises:
            ColoqError: the models cannot be reached, or failed.
        """
        return self._score(samples, None)

    def score_live(self, samples: Sequence[Sample]) -> list[Score | Ungradable | None]:
        """See SharedRewardModel.score_live. Absent also when the models cannot be reached: live requests go on."""
        try:
            return self._score(samples, self._ranking_timeout_s)
        except (TimeoutError, ColoqError) as error:
            log.warning("ranked_without_reward_model", part=self.name, reason=str(error) or type(error).__name__)
            return [None] * len(samples)

    def _score(self, samples: Sequence[Sample], within_s: float | None) -> list[Score | Ungradable | None]:
        covered = [index for index, sample in enumerate(samples) if self._covers(sample)]
        answers: list[Score | Ungradable | None] = [None] * len(samples)
        if not covered:
            return answers
        chosen = [samples[index] for index in covered]
        deadline = None if within_s is None else time.monotonic() + within_s
        votes = [judge.values(chosen, within_s=_until(deadline)) for judge in self.judges]
        for index, ballot in zip(covered, zip(*votes, strict=True), strict=True):
            answers[index] = self._combined([vote for vote in ballot if vote is not None])
        return answers

    def _covers(self, sample: Sample) -> bool:
        return not self._languages or primary_code(sample.brief.language) in self._languages

    def _combined(self, votes: Sequence[tuple[float, str] | Ungradable]) -> Score | Ungradable | None:
        """One judge that cannot grade is enough: the mean of the others would be another reward."""
        if not votes:
            return None
        graded = [vote for vote in votes if not isinstance(vote, Ungradable)]
        if len(graded) < len(votes):
            return next(vote for vote in votes if isinstance(vote, Ungradable))
        value = pessimistic([value for value, _ in graded], self._penalty)
        return Score(value, f"{self.name}@{'+'.join(revision for _, revision in graded)}")


def _until(deadline: float | None) -> float | None:
    """Seconds that are left for the next judge."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
