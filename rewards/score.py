"""A judge's answer: a finite score with named parts, or the reason why there is none."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agent.brief import Brief
from agent.completion import Completion, FinishReason


@dataclass(frozen=True, slots=True)
class Sample:
    """One reply to be judged, with the brief that asked for it."""

    brief: Brief
    text: str
    finish_reason: FinishReason
    num_tokens: int

    @classmethod
    def of(cls, brief: Brief, completion: Completion) -> "Sample":
        """A completion as it is judged."""
        return cls(brief, completion.text, completion.finish_reason, len(completion.token_ids))


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
    """A judge of replies."""

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str: ...

    def score(self, samples: Sequence[Sample]) -> list[Score | Ungradable]:
        """Judge each sample, in order. Must not raise for a bad sample: return Ungradable."""
        ...
