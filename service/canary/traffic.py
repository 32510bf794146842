"""What live traffic tells of policies: replies and failures are noted as they happen, without I/O or scoring.

    journal ─► reply(episode) ─► trial's side, active policy's baseline ─► a few samples wait to be scored
    engine  ─► failure(request)

Rewards are scored later, at a bounded rate, by service.canary.scoring.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from agent.completion import Completion
from agent.episode import Episode
from agent.errors import EngineDead, EngineError, PromptTooLong
from agent.language import primary_code
from agent.ports import Audience, Engine, GenerateRequest, Journal
from agent.verdict import Verdict
from rewards.score import Sample
from service.canary.cap import PersonCap, group_of
from service.canary.records import Baseline
from service.canary.tally import Measure, Side
from service.canary.trial import Trial
from service.routing import PolicyRoutes

_QUEUED = 32
"""Newest samples of a side and language that wait to be scored."""
_BASELINE_VALUES = 2_000
"""Values of the active policy's record that count fully; older ones weigh less and less."""


@dataclass(frozen=True, slots=True)
class ScoringOrder:
    """A served reply to be scored, and whose record its reward goes to."""

    sample: Sample
    language: str
    sides: tuple[Side, ...]
    group: str | None = None
    """The person that it was served to."""


class Traffic:
    """Feeds the trial and the baseline of a node."""

    def __init__(self, routes: PolicyRoutes, cap: PersonCap | None = None) -> None:
        """``cap`` holds for the active policy's record, as the trial's own does for its sides; None is no cap."""
        self._routes, self._cap = routes, cap
        self.trial: Trial | None = None
        self.baseline = Baseline(0)
        self.changed = False
        """Whether anything was noted since somebody set it to False."""
        self.on_reply: Callable[[str, str], None] = lambda arm, language: None
        """Hears of each reply of a trial: ``candidate`` or ``stable``, and its language."""
        self._waiting: dict[tuple[int, str], deque[ScoringOrder]] = {}

    def reply(self, episode: Episode) -> None:
        """A reply was served."""
        audience = Audience.of(episode.brief, episode.id)
        served = episode.completions[episode.served]
        language = primary_code(audience.language)
        sides = list(self._sides(audience, served.versions.last))
        if not sides:
            return
        group = group_of(audience)
        for side in sides:
            side.count(language)
            _note(side, language, episode, served, group)
        self.changed = True
        self.baseline.side.forget_beyond(_BASELINE_VALUES)
        order = ScoringOrder(Sample.of(episode.brief, served), language, tuple(sides), group)
        self._waiting.setdefault((id(sides[0]), language), deque(maxlen=_QUEUED)).append(order)

    def feedback(self, episode: Episode, voice: str, value: float) -> None:
        """Somebody said of a served reply how good it was, from 0 to 1. Replies from before a trial are not its own,
        and one voice counts so often and no more."""
        audience = Audience.of(episode.brief, episode.id)
        language, trial, group = primary_code(audience.language), self.trial, f"{audience.tenant} {voice}"
        version = episode.completions[episode.served].versions.last
        if self._routes.bound_version(audience) is not None:
            return
        if trial is not None and episode.created_at >= trial.record.started_at:
            side = trial.side_of(audience, version)
            if side is not None and trial.counts_voice(audience, voice):
                side.add(language, Measure.FEEDBACK, value, group)
        if version == self.baseline.version and (self._cap is None or self._cap.admits_voice(audience, voice)):
            self.baseline.side.add(language, Measure.FEEDBACK, value, group)
        self.changed = True

    def failure(self, request: GenerateRequest) -> None:
        """The engine failed a request."""
        if request.audience is None or request.policy_version is not None:
            return
        language = primary_code(request.audience.language)
        for side in self._sides(request.audience, self._version_for(request.audience)):
            side.add(language, Measure.FAILURES, 1.0, group_of(request.audience))
            self.changed = True

    def take(self, num_samples: int) -> list[ScoringOrder]:
        """Up to so many replies to score, of the sides and languages with the fewest scores first."""
        taken: list[ScoringOrder] = []
        while len(taken) < num_samples and self._waiting:
            key = min(self._waiting, key=lambda key: _num_scored(self._waiting[key][0], taken))
            taken.append(self._waiting[key].pop())
            if not self._waiting[key]:
                del self._waiting[key]
        return taken

    def forget_waiting(self) -> None:
        """A trial begins or ends: what waits was sampled for other sides."""
        self._waiting.clear()

    def _sides(self, audience: Audience, version: int) -> Iterator[Side]:
        """Records that a request counts in. A tenant with a pin or a policy of its own is in none: it would be on one
        side alone."""
        if self._routes.bound_version(audience) is not None:
            return
        trial = self.trial
        if trial is not None and (side := trial.side_of(audience, version)) is not None and trial.counts(audience):
            self.on_reply("candidate" if side is trial.candidate else "stable", primary_code(audience.language))
            yield side
        if version == self.baseline.version and (self._cap is None or self._cap.admits(audience)):
            yield self.baseline.side

    def _version_for(self, audience: Audience) -> int:
        return self._routes.version_for(audience, self.baseline.version)


def _num_scored(order: ScoringOrder, taken: list[ScoringOrder]) -> int:
    waiting = sum(other.sides[0] is order.sides[0] and other.language == order.language for other in taken)
    return order.sides[0].get(order.language, Measure.REWARD).num + waiting


def _note(side: Side, language: str, episode: Episode, served: Completion, group: str | None) -> None:
    side.add(language, Measure.FAILURES, 0.0, group)
    if episode.verdict.verdict is not Verdict.UNDETERMINED:
        broken = 0.0 if episode.verdict.verdict is Verdict.PASS else 1.0
        side.add(language, Measure.CONTRACT_FAILURES, broken, group)
    if served.timing is not None:
        after_first = (served.timing.inter_token_s or 0.0) * (len(served.token_ids) - 1)
        duration_s = max(served.timing.first_token_s + after_first, 1e-4)
        side.add(language, Measure.LATENCY, math.log(duration_s), group)


@dataclass(frozen=True, slots=True)
class WatchedJournal:
    """A journal whose episodes are also told to the traffic; what cannot be kept is told all the same."""

    journal: Journal
    traffic: Traffic

    async def append(self, episode: Episode) -> None:
        """See Journal.append."""
        self.traffic.reply(episode)
        await self.journal.append(episode)


@dataclass(frozen=True, slots=True)
class WatchedEngine:
    """An engine whose failures are also told to the traffic, but for those that no policy has to do with."""

    engine: Engine
    traffic: Traffic
    not_the_policys: tuple[type[Exception], ...] = field(default=(EngineDead, PromptTooLong))

    async def generate(self, request: GenerateRequest) -> Completion:
        """See Engine.generate."""
        try:
            return await self.engine.generate(request)
        except EngineError as error:
            if not isinstance(error, self.not_the_policys):
                self.traffic.failure(request)
            raise
