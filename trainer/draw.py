"""What a step trains on: groups of scored replies to logged prompts.

    claim prompts ─┬─► logged with siblings that fit: a group as it is ─┬─► score ─► teaching? ─► sequences
         ▲         └─► otherwise: sample G siblings ────────────────────┘              │ no
         └────────────────────────── refill, while the budget lasts ◄──────────────────┘

Groups whose siblings all scored alike teach nothing; fresh prompts take their place (dynamic sampling; DAPO, arXiv
2503.14476, section 3.2), but for at most ``tuning.refill_budget`` times the groups that a step wants.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from agent.completion import Completion, FinishReason, Sampling
from agent.episode import Episode
from agent.errors import TuningError
from agent.ports import Claim, ClaimingJournal
from agent.selection import Selection, share_of
from rewards.panel import Panel
from rewards.score import Sample, Score, Ungradable
from trainer.group import Fitness, Group, TrainingSequence, teaching, training_sequences, untruncated
from trainer.lineage import Lineage
from trainer.plan import RunPlan
from trainer.ports import Admission
from trainer.rollout import RolloutSampler


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one step has drawn."""

    lineage: Lineage
    """Up to the policy that the step begins with, which siblings are sampled from."""
    claims: Sequence[Claim]
    """All that were claimed; to be settled with the step."""
    groups: Sequence[Group]
    """All that were scored."""
    sequences: Sequence[TrainingSequence]
    num_masked: int
    """Truncated replies beside the sequences, which count in means over replies."""
    dropped: Mapping[str, int]
    """Completions that were not trained on, by reason; prompts that left no room for a reply among them."""
    passed_over: Mapping[str, int]
    """Logged prompts that were not claimed, by reason."""
    num_logged_groups: int
    num_sampled_groups: int
    rollout_s: float
    score_s: float

    @property
    def staleness_mean(self) -> float:
        """Optimizer steps between a token's policy and the step's, averaged over the trained tokens."""
        num_tokens = sum(len(sequence.completion.token_ids) for sequence in self.sequences)
        weighted = [self._staleness(item) * len(item.completion.token_ids) for item in self.sequences]
        return sum(weighted) / num_tokens

    @property
    def staleness_max(self) -> int:
        """Of the oldest token that is trained on."""
        return max(map(self._staleness, self.sequences))

    def _staleness(self, sequence: TrainingSequence) -> int:
        staleness = self.lineage.staleness(sequence.completion.versions)
        assert staleness is not None  # or it would not be trained on
        return staleness


@dataclass(frozen=True, slots=True)
class GroupSource:
    """Draws the groups of one run's steps."""

    journal: ClaimingJournal
    sampler: RolloutSampler
    panel: Panel
    admission: Admission
    tally: Counter[str] = field(default_factory=Counter)
    """How often the run has claimed each prompt, by its digest."""

    async def draw(self, step: int, lineage: Lineage, plan: RunPlan) -> Drawn:
        """The groups of a step: ``prompts_per_step`` of them, or as many as the budget and the journal have.

        The same journal, tally, plan and step draw the same prompts with the same seeds.

        Args:
            lineage: the run's, up to the policy that the step begins with.

        Raises:
            TuningError: there is no prompt, or no group that teaches anything.
            EngineError: the first that a rollout raised.
        """
        return await _Drawing(self, step, lineage, plan).run()


class Draws:
    """A run's draws, one at a time. A step's may be begun before the step is, and then goes on by itself."""

    def __init__(self, source: GroupSource, plan: RunPlan) -> None:
        self._source, self._plan = source, plan
        self._in_flight: asyncio.Task[Drawn] | None = None

    def begin(self, step: int, lineage: Lineage) -> asyncio.Task[Drawn]:
        """Begin a step's draw unless it has begun. It does nothing before the caller next waits for something."""
        if self._in_flight is None:
            draw = self._source.draw(step, lineage, self._plan)
            self._in_flight = asyncio.create_task(draw, name=f"draw-{step}")
        return self._in_flight

    async def take(self, step: int, lineage: Lineage) -> Drawn:
        """What a step has drawn; its draw is begun unless it has been. Raises as GroupSource.draw does."""
        drawn = await self.begin(step, lineage)
        self._in_flight = None
        return drawn

    async def cancel(self) -> None:
        """End the draw in flight, if any. What it has claimed is not settled, as after a draw that failed."""
        if self._in_flight is not None:
            self._in_flight.cancel()
            await asyncio.gather(self._in_flight, return_exceptions=True)


class _Drawing:
    """One step's draw, in rounds."""

    def __init__(self, source: GroupSource, step: int, lineage: Lineage, plan: RunPlan) -> None:
        self._source, self._step, self._lineage, self._plan = source, step, lineage, plan
        self._fitness = Fitness(lineage, plan.config.max_staleness, plan.config.temperature)
        self._selection = Selection(
            per_tenant=share_of(plan.prompts_per_step, 1.0 if plan.tenant else plan.config.max_share_per_tenant),
            per_end_user=share_of(plan.prompts_per_step, plan.config.max_share_per_end_user),
            tally=source.tally,
            tenant=plan.tenant,
        )
        self._claims: list[Claim] = []
        self._groups: list[Group] = []
        self._taught: list[Group] = []
        self._dropped: Counter[str] = Counter()
        self._num_logged = self._num_sampled = self._num_rounds = 0
        self._rollout_s = self._score_s = 0.0

    async def run(self) -> Drawn:
        """See GroupSource.draw."""
        while (num_wanted := self._num_wanted()) and (claims := await self._claim(num_wanted)):
            sampling = self._sampling()
            self._claims += claims
            await self._judge(claims, await self._siblings(claims, sampling))
            self._num_rounds += 1
        self._require_something()
        sequences = training_sequences(self._taught, self._plan.config.advantage_scale)
        kept = untruncated(sequences) if self._plan.config.mask_truncated else sequences
        self._dropped["truncated"] += len(sequences) - len(kept)
        return Drawn(
            lineage=self._lineage,
            claims=self._claims,
            groups=self._groups,
            sequences=kept,
            num_masked=len(sequences) - len(kept),
            dropped=+self._dropped,
            passed_over=self._selection.passed_over,
            num_logged_groups=self._num_logged,
            num_sampled_groups=self._num_sampled,
            rollout_s=self._rollout_s,
            score_s=self._score_s,
        )

    def _num_wanted(self) -> int:
        plan = self._plan
        num_left = plan.prompts_per_step + plan.num_refills - len(self._claims)
        return min(plan.prompts_per_step - len(self._taught), num_left)

    def _sampling(self) -> Sampling:
        """With seeds that no other prompt of the step has."""
        sampling = self._plan.sampling(self._step)
        return replace(sampling, seed=(sampling.seed or 0) + len(self._claims) * self._plan.group_size)

    async def _claim(self, num_prompts: int) -> list[Claim]:
        seed = self._sampling().seed or 0
        return await self._source.journal.claim(self._plan.languages, num_prompts, seed=seed, selection=self._selection)

    async def _siblings(self, claims: Sequence[Claim], sampling: Sampling) -> list[tuple[Completion, ...]]:
        """Of each prompt: those that were logged, or fresh ones; none for a prompt that leaves no room for a reply."""
        started = time.perf_counter()
        logged = [self._logged(claim) for claim in claims]
        unanswered = [claim.episode for claim, siblings in zip(claims, logged, strict=True) if not siblings]
        label = f"rollout-{self._step}-{self._num_rounds}-v{self._lineage.version}"
        sampled = await self._source.sampler.siblings(
            unanswered,
            version=self._lineage.version,
            group_size=self._plan.group_size,
            sampling=sampling,
            label=label,
        )
        self._num_logged += sum(map(bool, logged))
        self._num_sampled += sum(map(bool, sampled))
        self._rollout_s += time.perf_counter() - started
        rest = iter(sampled)
        return [siblings or next(rest) for siblings in logged]

    def _logged(self, claim: Claim) -> tuple[Completion, ...]:
        """The completions that a request asked for, where at least two of them may be trained on; once in their life.

        The others of such a request are counted as dropped, and so are all when a repair put sentences into the one
        that was served: nothing that was sampled was served then.
        """
        completions = claim.episode.completions
        if claim.again or len(completions) < 2:
            return ()
        if not claim.episode.served_as_sampled:
            self._dropped["repaired"] += len(completions)
            return ()
        flaws = [self._fitness.flaw(completion) for completion in completions]
        self._dropped.update(flaw for flaw in flaws if flaw is not None)
        fit = tuple(item for item, flaw in zip(completions, flaws, strict=True) if flaw is None)
        if len(fit) == 1:
            self._dropped["single"] += 1
        return fit if len(fit) > 1 else ()

    async def _judge(self, claims: Sequence[Claim], siblings: Sequence[tuple[Completion, ...]]) -> None:
        """Keep the groups that teach something; the places of the others are free again.

        Group by group, so that live requests come in between; all at once where that is not in their way.
        """
        started = time.perf_counter()
        answered = list(zip(claims, siblings, strict=True))
        at_once = len(answered) if self._source.panel.has_delegate else 1
        for first in range(0, len(answered), at_once):
            some = answered[first : first + at_once]
            for (claim, completions), scores in zip(some, await self._scores(some), strict=True):
                group = self._group(claim.episode, completions, scores)
                if group is None:
                    self._selection.give_back(claim.episode)
                else:
                    self._taught.append(group)
        self._score_s += time.perf_counter() - started

    async def _scores(
        self, answered: Sequence[tuple[Claim, tuple[Completion, ...]]]
    ) -> list[tuple[Score | Ungradable, ...]]:
        """Of each prompt's completions."""
        samples = [Sample.in_episode(claim.episode, item) for claim, completions in answered for item in completions]
        if not samples:
            return [()] * len(answered)
        if not self._source.panel.has_delegate:
            await self._source.admission.admitted()
        scores = iter(await asyncio.to_thread(self._source.panel.score, samples))
        return [tuple(islice(scores, len(completions))) for _, completions in answered]

    def _group(
        self, episode: Episode, completions: tuple[Completion, ...], scores: tuple[Score | Ungradable, ...]
    ) -> Group | None:
        if not completions:
            self._dropped["prompt_too_long"] += 1
            return None
        group = Group(episode.brief, completions, scores)
        self._groups.append(group)
        taught, dropped = teaching(group, self._fitness)
        self._dropped.update(dropped)
        if taught is not None and self._plan.config.mask_truncated and _all_truncated(taught):
            self._dropped["truncated"] += len(taught.completions)
            return None
        return taught

    def _require_something(self) -> None:
        languages = ", ".join(self._plan.languages)
        if not self._claims:
            raise TuningError(f"the journal has no training prompts in {languages}: send content requests first")
        if not self._taught:
            raise TuningError(
                f"nothing to learn from in {len(self._claims)} prompts; dropped replies by reason: "
                f"{dict(+self._dropped)}"
            )


def _all_truncated(group: Group) -> bool:
    return all(completion.finish_reason is FinishReason.LENGTH for completion in group.completions)
