"""The gate's comparison of a candidate with the policy it would replace, on held-out prompts, language by language.

A candidate passes when in every language its mean reward and its share of text in the language are at most ``margin``
below the baseline's. The share is judged by another detector than the reward's, so that a policy cannot pass by having
learned the reward's detector. Both policies sample with the same seeds.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from agent.completion import Completion, Sampling
from agent.contract import LanguageContract
from agent.episode import Episode
from agent.errors import GateRejected
from agent.ports import ClaimingJournal
from rewards.panel import Panel
from rewards.score import Sample, Score
from trainer.records import Evaluation
from trainer.rollout import RolloutSampler


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Samples and judges held-out replies."""

    journal: ClaimingJournal
    sampler: RolloutSampler
    panel: Panel
    second_opinion: LanguageContract
    temperature: float
    num_prompts: int
    margin: float
    min_determined: int = 1
    """Fewest replies of a language, of each policy, whose language was determined, for their share to be compared."""

    async def compare(
        self, version: int, baseline: int, *, languages: Sequence[str], max_tokens: int, seed: int
    ) -> Evaluation:
        """Evaluate both versions on the same prompts.

        Raises:
            GateRejected: there is no held-out prompt to compare on, or nothing could be graded.
        """
        episodes = await self.journal.held_out(languages, self.num_prompts)
        if not episodes:
            raise GateRejected(
                f"the gate needs held-out prompts in {', '.join(languages)}, the journal has none: send more requests, "
                "or start the run with the gate off"
            )
        sampling = Sampling(max_tokens=max_tokens, temperature=self.temperature, seed=seed)
        judged = {v: await self._judge(episodes, v, sampling) for v in (version, baseline)}
        for judged_version, result in judged.items():
            if not result.rewards:
                raise GateRejected(
                    f"none of {len(episodes)} held-out replies of version {judged_version} could be graded"
                )
        return _evaluation(version, baseline, judged[version], judged[baseline], self.margin, self.min_determined)

    async def _judge(self, episodes: Sequence[Episode], version: int, sampling: Sampling) -> "_Judged":
        groups = await self.sampler.siblings(
            episodes, version=version, group_size=1, sampling=sampling, label=f"held-out-v{version}"
        )
        replies = [(episode, group[0]) for episode, group in zip(episodes, groups, strict=True) if group]
        return await asyncio.to_thread(self._grade, replies)

    def _grade(self, replies: Sequence[tuple[Episode, Completion]]) -> "_Judged":
        scores = self.panel.score([to_sample(episode, completion) for episode, completion in replies])
        judged = _Judged(defaultdict(list), defaultdict(list))
        for (episode, completion), score in zip(replies, scores, strict=True):
            brief = episode.brief
            if isinstance(score, Score):
                judged.rewards[brief.language].append(score.value)
            verdict = self.second_opinion.judge(completion.text, brief.language, brief.brand_terms)
            if verdict.share is not None:
                judged.fidelity[brief.language].append(verdict.share)
        return judged


def to_sample(episode: Episode, completion: Completion) -> Sample:
    """A completion as the panel judges it."""
    return Sample(episode.brief, completion.text, completion.finish_reason, len(completion.token_ids))


@dataclass(frozen=True, slots=True)
class _Judged:
    rewards: dict[str, list[float]]
    fidelity: dict[str, list[float]]


def _evaluation(version: int, baseline: int, ours: _Judged, theirs: _Judged, margin: float, fewest: int) -> Evaluation:
    rewards = _pairs(ours.rewards, theirs.rewards)
    fidelity = _pairs(ours.fidelity, theirs.fidelity, fewest)
    rejected: dict[str, str] = {}
    for name, pairs in (("language fidelity", fidelity), ("reward", rewards)):
        for language, (candidate, reference) in pairs.items():
            if candidate < reference - margin:
                rejected[language] = f"{name} fell from {reference:.3f} to {candidate:.3f}, more than {margin:g}"
    for language in theirs.rewards.keys() - ours.rewards.keys():
        rejected[language] = "no reply of the candidate could be graded"
    return Evaluation(
        version=version,
        baseline_version=baseline,
        reward=_mean([value for values in ours.rewards.values() for value in values]),
        baseline_reward=_mean([value for values in theirs.rewards.values() for value in values]),
        by_language=rewards,
        fidelity=fidelity,
        rejected=rejected,
    )


def _pairs(
    ours: dict[str, list[float]], theirs: dict[str, list[float]], fewest: int = 1
) -> dict[str, tuple[float, float]]:
    """Means of both sides, for languages in which both have at least ``fewest`` values."""
    return {
        language: (_mean(ours[language]), _mean(theirs[language]))
        for language in sorted(ours.keys() & theirs.keys())
        if min(len(ours[language]), len(theirs[language])) >= fewest
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
