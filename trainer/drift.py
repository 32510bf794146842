"""How far a candidate has moved on replies that were logged, token by token, without letting it answer anything.

The learner scores the same held-out replies before the first step, when its weights are still the baseline's, and again
under the candidate. A model that drifts away from a language finds what was served in it less probable, which shows
before any user gets the candidate and without a single generated token.

The replies were sampled by whatever policy served them, most often the baseline, at the temperature of their requests;
they are scored at temperature 1. So the divergence is an estimate on such replies, not over all that a policy may say.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.episode import Episode
from trainer.gate_records import Drift
from trainer.ports import TrainerPort

_REPLIES_OF_LANGUAGE = 4
_MAX_LOG_RATIO = 20.0
"""e^20 is beyond any threshold, and still a number."""


@dataclass(frozen=True, slots=True)
class Recital:
    """Log-probabilities of logged replies' tokens under one policy, by the episode's id."""

    logprobs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def recited(episodes: Sequence[Episode]) -> tuple[Episode, ...]:
    """Those of an exam's episodes whose replies are scored: the first few of each language that have one."""
    taken: dict[str, list[Episode]] = {}
    for episode in episodes:
        own = taken.setdefault(episode.brief.language, [])
        if len(own) < _REPLIES_OF_LANGUAGE and episode.completions[episode.served].token_ids:
            own.append(episode)
    return tuple(episode for own in taken.values() for episode in own)


async def recite(trainer: TrainerPort, episodes: Sequence[Episode]) -> Recital:
    """Score what was served in ``episodes`` under the learner's newest weights.

    Raises:
        TrainerFailed, EngineDead: see TrainerPort.
    """
    served = [episode.completions[episode.served] for episode in episodes]
    rows = await trainer.logprobs([reply.prompt_token_ids for reply in served], [reply.token_ids for reply in served])
    return Recital({episode.id: tuple(row) for episode, row in zip(episodes, rows, strict=True)})


def drift(episodes: Sequence[Episode], candidate: Recital, baseline: Recital) -> dict[str, Drift]:
    """What changed from the baseline's recital to the candidate's, by language.

    The divergence is KL(baseline || candidate) by the k3 estimator, mean(r - 1 - log r) with r = candidate's over
    baseline's probability of a token. Source: Schulman 2020, "Approximating KL Divergence".
    """
    rows: dict[str, list[tuple[float, float]]] = {}
    for episode in episodes:
        ours, theirs = candidate.logprobs.get(episode.id, ()), baseline.logprobs.get(episode.id, ())
        if ours and len(ours) == len(theirs):
            rows.setdefault(episode.brief.language, []).extend(zip(ours, theirs, strict=True))
    return {language: _drift(tokens) for language, tokens in sorted(rows.items())}


def _drift(tokens: Sequence[tuple[float, float]]) -> Drift:
    ratios = [min(ours - theirs, _MAX_LOG_RATIO) for ours, theirs in tokens]
    return Drift(
        logprob=math.fsum(ours for ours, _ in tokens) / len(tokens),
        baseline_logprob=math.fsum(theirs for _, theirs in tokens) / len(tokens),
        kl=math.fsum(math.exp(ratio) - 1 - ratio for ratio in ratios) / len(tokens),
        num_tokens=len(tokens),
    )
