"""The gate's exam: held-out prompts that a candidate and the policy it would replace both answer, in every language.

    held-out prompts of every enabled language, frozen ─► both policies' replies, with the same seeds
    ─► measures of each reply ─► trainer.gate's decision

Languages are those of all tenants and not only the run's: learning German must not cost the Poles. Replies are judged
by the panel, by rules, and by other language detectors than the reward's, so that a policy cannot pass by having
learned the reward's detector.
"""

import asyncio
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.completion import Completion, Sampling
from agent.episode import Episode
from agent.errors import GateRejected
from agent.ports import ClaimingJournal
from agent.siblings import together
from rewards.agreement import LanguageJudge
from rewards.panel import Panel
from rewards.score import Sample
from trainer.config import GateConfig
from trainer.gate import decide
from trainer.gate_records import Drift
from trainer.graded import GradedReply, Judged
from trainer.measures import measures
from trainer.ports import Admission
from trainer.records import Evaluation
from trainer.rollout import RolloutSampler

_GRADED_AT_ONCE = 8
"""Replies judged between two askings for admission: the judges hold Python's lock."""
_SEARCHED = 4
"""A frozen exam's prompts are looked for among so many times as many of the newest: the journal has grown since."""


@dataclass(frozen=True, slots=True)
class Exam:
    """Held-out prompts, and how replies to them are sampled. The same for both policies, and for the whole run."""

    episodes: tuple[Episode, ...]
    languages: tuple[str, ...]
    """Every language that is judged, with prompts or without."""
    sampling: Sampling

    @property
    def prompts(self) -> tuple[str, ...]:
        """The prompts' digests, in the exam's order."""
        return tuple(episode.prompt_digest for episode in self.episodes)

    @property
    def digest(self) -> str:
        """A hash of all prompts: the same for the same exam."""
        return hashlib.sha256(" ".join(sorted(self.prompts)).encode()).hexdigest()[:32]

    @property
    def num_prompts(self) -> dict[str, int]:
        """By language."""
        return {language: len(self.of(language)) for language in self.languages}

    def of(self, language: str) -> tuple[Episode, ...]:
        """The episodes of one language."""
        return tuple(episode for episode in self.episodes if episode.brief.language == language)


@dataclass(frozen=True, slots=True)
class Evaluator:
    """Sets exams, and samples and judges replies to them."""

    journal: ClaimingJournal
    sampler: RolloutSampler
    panel: Panel
    admission: Admission
    second_opinion: LanguageJudge
    temperature: float
    config: GateConfig

    async def compare(
        self, version: int, baseline: int, *, languages: Sequence[str], max_tokens: int, seed: int
    ) -> Evaluation:
        """Evaluate both versions on the same prompts, one after the other.

        Raises:
            GateRejected: there is no held-out prompt to compare on, or nothing could be graded.
        """
        exam = await self.exam(languages, max_tokens=max_tokens, seed=seed)
        judged = await self.judge(exam, version)
        return self.verdict(exam, judged, await self.judge(exam, baseline), targets=languages)

    async def exam(self, languages: Sequence[str], *, max_tokens: int, seed: int, frozen: Sequence[str] = ()) -> Exam:
        """What all policies of one comparison are asked: up to ``tuning.gate.num_prompts`` of each language, tenants in
        turn.

        Args:
            frozen: digests of the prompts that an interrupted run was examined on; those still kept are taken again.

        Raises:
            GateRejected: there is no held-out prompt.
        """
        chosen = tuple(sorted(set(languages)))
        episodes = [episode for language in chosen for episode in await self._prompts(language, frozenset(frozen))]
        if not episodes:
            raise GateRejected(
                f"the gate needs held-out prompts in {', '.join(languages)}, the journal has none: send more requests, "
                "or start the run with the gate off"
            )
        sampling = Sampling(max_tokens=max_tokens, temperature=self.temperature, seed=seed)
        return Exam(tuple(episodes), chosen, sampling)

    async def judge(self, exam: Exam, version: int) -> Judged:
        """Sample a version that the engine can sample from, and grade its replies.

        Raises:
            GateRejected: nothing could be graded.
        """
        samples = await together([self._sample(exam, language, version) for language in exam.languages])
        asked = [item for language in samples for item in language]
        replies: list[GradedReply] = []
        for first in range(0, len(asked), _GRADED_AT_ONCE):
            await self.admission.admitted()
            replies += await asyncio.to_thread(self._grade, asked[first : first + _GRADED_AT_ONCE])
        if not any("reward" in reply.measures for reply in replies):
            raise GateRejected(f"none of {len(replies)} held-out replies of version {version} could be graded")
        return Judged(version, tuple(replies))

    def verdict(
        self,
        exam: Exam,
        candidate: Judged,
        baseline: Judged,
        *,
        targets: Sequence[str],
        drift: Mapping[str, Drift] | None = None,
        notes: Sequence[str] = (),
    ) -> Evaluation:
        """Compare what two policies got in the same exam; see trainer.gate.decide."""
        return decide(
            candidate,
            baseline,
            self.config,
            num_prompts=exam.num_prompts,
            exam=exam.digest,
            targets=targets,
            drift=drift,
            notes=notes,
        )

    async def _prompts(self, language: str, frozen: frozenset[str]) -> list[Episode]:
        wanted = self.config.num_prompts
        found = await self.journal.held_out([language], wanted * (_SEARCHED if frozen else 1))
        distinct = {episode.prompt_digest: episode for episode in reversed(found)}
        kept = [episode for digest, episode in reversed(distinct.items()) if not frozen or digest in frozen]
        return kept[:wanted]

    async def _sample(self, exam: Exam, language: str, version: int) -> list["_Asked"]:
        """Several replies to each prompt where prompts are few; one each at temperature 0, where all are alike."""
        episodes = exam.of(language)
        if not episodes:
            return []
        num_samples = min(self.config.max_samples, math.ceil(self.config.num_replies / len(episodes)))
        groups = await self.sampler.siblings(
            episodes,
            version=version,
            group_size=num_samples if exam.sampling.temperature > 0 else 1,
            sampling=exam.sampling,
            label=f"held-out-v{version}-{language}",
        )
        return [
            _Asked(episode, number, completion)
            for episode, group in zip(episodes, groups, strict=True)
            for number, completion in enumerate(group)
        ]

    def _grade(self, asked: Sequence["_Asked"]) -> list[GradedReply]:
        samples = [to_sample(item.episode, item.completion) for item in asked]
        return [
            GradedReply(
                prompt=item.episode.prompt_digest,
                language=item.episode.brief.language,
                number=item.number,
                measures=measures(sample, item.completion, score, self.second_opinion),
                text=sample.text if self.config.keep_texts and item.number == 0 else None,
            )
            for item, sample, score in zip(asked, samples, self.panel.score(samples), strict=True)
        ]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A reply to one prompt of an exam; ``number`` counts the prompt's replies."""

    episode: Episode
    number: int
    completion: Completion


def to_sample(episode: Episode, completion: Completion) -> Sample:
    """A completion as the panel judges it."""
    return Sample.in_episode(episode, completion)
