"""A judge's answer: a finite score with named parts, or the reason why there is none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.brief import Brief
from agent.completion import Completion, FinishReason
from agent.episode import Episode


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply to be judged, with the brief that asked for it."""

    brief: Brief
    text: str
    finish_reason: FinishReason
    num_tokens: int
    reference: str | None = None
    """The reply that was served to this brief, which reward models centre on; None where there is none yet."""

    @classmethod
    def of(cls, brief: Brief, completion: Completion, *, reference: str | None = None) -> "Sample":
        """A completion as it is judged."""
        return cls(brief, completion.text, completion.finish_reason, len(completion.token_ids), reference)

    @classmethod
    def in_episode(cls, episode: Episode, completion: Completion) -> "Sample":
        """A further reply to a request that was answered: what was served is its reference."""
        return cls.of(episode.brief, completion, reference=episode.completions[episode.served].text)


@dataclass(frozen=True, slots=True)
class Score:
    """A finite judgement in [-1, 1]. ``judge`` is ``name@revision``."""

    value: float
    judge: str
    parts: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"a score must be finite, got {self.value}; use Ungradable for what cannot be judged")


@dataclass(frozen=True, slots=True)
class Ungradable:
    """No judgement: a parse or judge failure, or too little to judge. Never a number."""

    reason: str
    judge: str


class RewardModel(Protocol):
    """A judge of replies.

    One with an attribute ``stateless`` that is true is made once more in every worker process (`rewards.workers`), and
    judges tuning's replies there.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def score(self, samples: Sequence[Sample]) -> Sequence[Score | Ungradable | None]:
        """Judge each sample, in order. Must not raise for a bad sample: return Ungradable.

        None where the judge does not apply: to a language that it was not trained for.
        """
        ...


class SharedRewardModel(RewardModel, Protocol):
    """A judge that many threads may ask at one time, and that knows when somebody is waiting."""

    def score_live(self, samples: Sequence[Sample]) -> Sequence[Score | Ungradable | None]:
        """As ``score``, for a live request: None for every sample when the answer would come too late."""
        ...
