"""A group: one prompt, its sibling completions, their scores; and which of them may be trained on."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agent.brief import Brief
from agent.completion import Completion, FinishReason
from rewards.score import Score, Ungradable
from trainer.advantage import advantages, has_spread
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


@dataclass(frozen=True, slots=True)
class TrainingSequence:
    """One completion with its advantage, ready for a batch."""

    completion: Completion
    advantage: float
    language: str


def trainable_sequences(
    groups: Sequence[Group], *, current_version: int, max_staleness: int, scale: AdvantageScale
) -> tuple[list[TrainingSequence], Counter[str]]:
    """Sequences to train on, and how many completions were dropped for which reason.

    Reasons: ``ungradable``, ``stale``, ``truncated_sampling`` (logprobs biased by top-p and the like), ``empty``,
    ``single`` (fewer than two siblings left), ``no_spread`` (all siblings scored alike).
    """
    trained: list[tuple[str, list[tuple[Completion, Score]]]] = []
    dropped: Counter[str] = Counter()
    for group in groups:
        kept = _kept(group, current_version, max_staleness, dropped)
        rewards = [score.value for _, score in kept]
        if len(kept) < 2:
            dropped["single"] += len(kept)
        elif not has_spread(rewards):
            dropped["no_spread"] += len(kept)
        else:
            trained.append((group.brief.language, kept))
    return _with_advantages(trained, scale), dropped


def untruncated(sequences: Sequence[TrainingSequence]) -> list[TrainingSequence]:
    """Without those that ended at their token limit (DAPO, arXiv 2503.14476, section 3.4: overlong filtering)."""
    return [one for one in sequences if one.completion.finish_reason is not FinishReason.LENGTH]


def _with_advantages(
    trained: Sequence[tuple[str, Sequence[tuple[Completion, Score]]]], scale: AdvantageScale
) -> list[TrainingSequence]:
    """Sequences of a batch's groups, each given with its language."""
    rewards = [[score.value for _, score in kept] for _, kept in trained]
    by_group = advantages(rewards, [language for language, _ in trained], scale)
    return [
        TrainingSequence(completion, advantage, language)
        for (language, kept), values in zip(trained, by_group, strict=True)
        for (completion, _), advantage in zip(kept, values, strict=True)
    ]


def _kept(
    group: Group, current_version: int, max_staleness: int, dropped: Counter[str]
) -> list[tuple[Completion, Score]]:
    kept: list[tuple[Completion, Score]] = []
    for completion, score in zip(group.completions, group.scores, strict=True):
        if isinstance(score, Ungradable):
            dropped["ungradable"] += 1
        elif current_version - completion.versions.first > max_staleness:
            dropped["stale"] += 1
        elif not completion.sampling.trainable:
            dropped["truncated_sampling"] += 1
        elif not completion.token_ids:
            dropped["empty"] += 1
        else:
            kept.append((completion, score))
    return kept
