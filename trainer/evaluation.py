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
from trainer.ports import Admission
from trainer.records import Evaluation
from trainer.rollout import RolloutSampler

_GRADED_AT_ONCE = 8
"""Replies judged between two askings for admission: the judges hold Python's lock."""


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Samples and judges held-out replies."""

    journal: ClaimingJournal
    sampler: RolloutSampler
    panel: Panel
    admission: Admission
    second_opinion: LanguageContract
    temperature: float
    num_prompts: int
    margin: float
    min_determined: int = 1
    """Fewest replies of a language, of each policy, whose language was determined, for their share to be compared."""

    async def compare(
        self, version: int, baseline: int, *, languages: Sequence[str], max_tokens: int, seed: int
    ) -> Evaluation:
        """Evaluate both versions on the same prompts, one after the other.

        Raises:
            GateRejected: there is no held-out prompt to compare on, or nothing could be graded.
        """
        exam = await self.exam(languages, max_tokens=max_tokens, seed=seed)
        judged = await self.judge(exam, version)
        return self.verdict(judged, await self.judge(exam, baseline))

    async def exam(self, languages: Sequence[str], *, max_tokens: int, seed: int) -> "Exam":
        """What all policies of one comparison are asked.

        Raises:
            GateRejected: there is no held-out prompt.
        """
        episodes = await self.journal.held_out(languages, self.num_prompts)
        if not episodes:
            raise GateRejected(
                f"the gate needs held-out prompts in {', '.join(languages)}, the journal has none: send more requests, "
                "or start the run with the gate off"
            )
        return Exam(tuple(episodes), Sampling(max_tokens=max_tokens, temperature=self.temperature, seed=seed))

    async def judge(self, exam: "Exam", version: int) -> "Judged":
        """Sample a version that the engine can sample from, and grade its replies.

        Raises:
            GateRejected: nothing could be graded.
        """
        groups = await self.sampler.siblings(
            exam.episodes, version=version, group_size=1, sampling=exam.sampling, label=f"held-out-v{version}"
        )
        replies = [(episode, group[0]) for episode, group in zip(exam.episodes, groups, strict=True) if group]
        judged = Judged(version, defaultdict(list), defaultdict(list))
        for first in range(0, len(replies), _GRADED_AT_ONCE):
            await self.admission.admitted()
            await asyncio.to_thread(self._grade, replies[first : first + _GRADED_AT_ONCE], judged)
        if not judged.rewards:
            raise GateRejected(f"none of {len(exam.episodes)} held-out replies of version {version} could be graded")
        return judged

    def verdict(self, candidate: "Judged", baseline: "Judged") -> Evaluation:
        """Compare what two policies got in the same exam."""
        return _evaluation(candidate, baseline, self.margin, self.min_determined)

    def _grade(self, replies: Sequence[tuple[Episode, Completion]], judged: "Judged") -> None:
        scores = self.panel.score([to_sample(episode, completion) for episode, completion in replies])
        for (episode, completion), score in zip(replies, scores, strict=True):
            brief = episode.brief
            if isinstance(score, Score):
                judged.rewards[brief.language].append(score.value)
            verdict = self.second_opinion.judge(completion.text, brief.language, brief.brand_terms)
            if verdict.share is not None:
                judged.fidelity[brief.language].append(verdict.share)


def to_sample(episode: Episode, completion: Completion) -> Sample:
    """A completion as the panel judges it."""
    return Sample.in_episode(episode, completion)


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out prompts, and how replies to them are sampled."""

    episodes: tuple[Episode, ...]
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Judged:
    """What one version got in an exam, by language."""

    version: int
    rewards: dict[str, list[float]]
    fidelity: dict[str, list[float]]


def _evaluation(ours: Judged, theirs: Judged, margin: float, fewest: int) -> Evaluation:
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
        version=ours.version,
        baseline_version=theirs.version,
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
