"""A group: one prompt, its sibling completions, their scores; and which of them may be trained on."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agent.brief import Brief
from agent.completion import Completion, FinishReason
from rewards.score import Score, Ungradable
from trainer.advantage import advantages, has_spread
from trainer.lineage import Lineage
from trainer.objective_settings import AdvantageScale


@dataclass(frozen=True, slots=True)
class Group:
    """Sibling completions of one prompt, each with its judgement."""

    brief: Brief
    completions: tuple[Completion, ...]
    scores: tuple[Score | Ungradable, ...]

    def __post_init__(self) -> None:
        if len(self.completions) != len(self.scores):
            raise ValueError(f"a group needs one score per completion, got {len(self.completions)}, {len(self.scores)}")

    @property
    def rewards(self) -> list[float]:
        """Values of the scores, without what could not be graded."""
        return [score.value for score in self.scores if isinstance(score, Score)]


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """One completion with its advantage, ready for a batch."""

    completion: Completion
    advantage: float
    language: str


@dataclass(frozen=True, slots=True)
class Fitness:
    """What a completion must be to be trained on in one step."""

    lineage: Lineage
    """Up to the policy that the step begins with."""
    max_staleness: int
    temperature: float
    """A batch has one; the trainer divides its logits by it, which is exact (see Completion.logprobs)."""

    def flaw(self, completion: Completion) -> str | None:
        """Why a completion may not be trained on, or None.

        Reasons: ``unknown_version`` (newer than the step's policy), ``stale``, ``other_temperature``, ``empty``,
        ``not_finite`` (a log-probability that is no number, from an engine gone wrong: it would end every run that
        trains on it), and each ``Bias`` of its log-probabilities.
        """
        staleness = self.lineage.staleness(completion.versions)
        if staleness is None:
            return "unknown_version"
        if staleness > self.max_staleness:
            return "stale"
        if completion.sampling.bias is not None:
            return completion.sampling.bias.value
        if completion.sampling.temperature != self.temperature:
            return "other_temperature"
        if not completion.token_ids:
            return "empty"
        return None if all(map(math.isfinite, completion.logprobs)) else "not_finite"


def teaching(group: Group, fitness: Fitness) -> tuple[Group | None, Counter[str]]:
    """The group without siblings that may not be trained on, and how many completions were dropped for which reason.

    None when nothing is left to compare: reasons are then ``single`` (fewer than two siblings left) or ``no_spread``
    (all siblings scored alike, so every advantage is zero; DAPO, arXiv 2503.14476, section 3.2). Other reasons are
    ``ungradable`` and those of Fitness.flaw.
    """
    dropped: Counter[str] = Counter()
    kept: list[tuple[Completion, Score]] = []
    for completion, score in zip(group.completions, group.scores, strict=True):
        if isinstance(score, Ungradable):
            dropped["ungradable"] += 1
        elif (flaw := fitness.flaw(completion)) is not None:
            dropped[flaw] += 1
        else:
            kept.append((completion, score))
    if len(kept) < 2:
        dropped["single"] += len(kept)
        return None, dropped
    if not has_spread([score.value for _, score in kept]):
        dropped["no_spread"] += len(kept)
        return None, dropped
    return Group(group.brief, tuple(sibling for sibling, _ in kept), tuple(score for _, score in kept)), dropped


def training_sequences(groups: Sequence[Group], scale: AdvantageScale) -> list[TrainingSequence]:
    """Every sibling of groups that ``teaching`` returned, with its advantage."""
    by_group = advantages([group.rewards for group in groups], [group.brief.language for group in groups], scale)
    return [
        TrainingSequence(completion, advantage, group.brief.language)
        for group, values in zip(groups, by_group, strict=True)
        for completion, advantage in zip(group.completions, values, strict=True)
    ]


def untruncated(sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
    """Without those that ended at their token limit (DAPO, arXiv 2503.14476, section 3.4: overlong filtering)."""
    return [one for one in sequences if one.completion.finish_reason is not FinishReason.LENGTH]
