"""One canary or watch in progress: who takes part, what both sides got, and what that comes to. No I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from agent.language import primary_code
from agent.ports import Audience
from service.canary.cap import PersonCap
from service.canary.comparison import Difference, Finding, Rules
from service.canary.config import CanaryConfig
from service.canary.records import Kind, Outcome, StoredTrial, TrialRecord
from service.canary.split import Split
from service.canary.tally import Measure, Side

_WATCHED = tuple(measure for measure in Measure if measure is not Measure.LATENCY)
"""Of a watch: its two sides have not run at the same time, so the load was another one."""
_NEEDED = frozenset({Measure.REWARD, Measure.CONTRACT_FAILURES, Measure.FAILURES, Measure.LATENCY})
"""Measures that a candidate must be shown to be no worse in; feedback may be too rare for that, and can only stop."""


class Verdict(StrEnum):
    """What is to be done."""

    GO_ON = "go_on"
    STOP = "stop"
    PROMOTE = "promote"
    """Of a canary: shown to be no worse. Of a watch: it is over."""
    EXPIRE = "expire"


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict and its reason."""

    verdict: Verdict
    reason: str


class Trial:
    """A trial of one node."""

    def __init__(self, stored: StoredTrial, config: CanaryConfig) -> None:
        self.record = stored.record
        self.candidate, self.stable = stored.candidate, stored.stable
        self._config = config
        measures = _WATCHED if self.is_watch else tuple(Measure)
        if config.scored_per_minute == 0:
            measures = tuple(measure for measure in measures if measure is not Measure.REWARD)
        self._rules = Rules.of(config, len(self.record.languages), measures)
        self._cap = PersonCap(config.per_end_user)

    @property
    def is_watch(self) -> bool:
        return self.record.kind is Kind.WATCH

    @property
    def stored(self) -> StoredTrial:
        """The trial as it is kept."""
        return StoredTrial(self.record, self.candidate, self.stable)

    @property
    def split(self) -> Split:
        """Who gets the candidate."""
        return Split(self.record.candidate, self.record.share, frozenset(self.record.languages))

    def side_of(self, audience: Audience, version: int) -> Side | None:
        """The side that a reply of ``version`` counts for; None when it takes no part.

        It takes part when the version is the one that the audience's side gets, so that whoever is pinned or names a
        version does not.
        """
        if primary_code(audience.language) not in self.record.languages:
            return None
        takes = self.is_watch or self.split.takes(audience)
        if version != (self.record.candidate if takes else self.record.stable):
            return None
        return self.candidate if takes else self.stable

    def counts(self, audience: Audience) -> bool:
        """Count one more reply of a subject; False once it has had as many as count."""
        return self._cap.admits(audience)

    def counts_voice(self, audience: Audience, voice: str) -> bool:
        """The same for feedback, whosever reply it is about."""
        return self._cap.admits_voice(audience, voice)

    def differences(self) -> list[Difference]:
        """Every measure and language that can be compared so far."""
        return self._rules.compare(self.candidate, self.stable, self.record.languages)

    def decide(self, differences: Sequence[Difference], now: datetime) -> Decision:
        """What the differences and the time come to."""
        if harmful := [found.sentence for found in differences if found.finding is Finding.HARM]:
            return Decision(Verdict.STOP, "; ".join(harmful))
        age = now - self.record.started_at
        if self.is_watch:
            over = age >= timedelta(seconds=self._config.watch_s)
            return Decision(Verdict.PROMOTE, "no harm in its time") if over else _GO_ON
        missing = self.missing(differences)
        is_full = self.candidate.num_total >= self._config.max_requests
        over = is_full or age >= timedelta(seconds=self._config.max_duration_s)
        due = age >= timedelta(seconds=self._config.min_duration_s)
        if due and not missing and (self._config.auto_promote or not over):
            return Decision(Verdict.PROMOTE, "shown to be no worse in every language")
        if over and (due or missing):
            spent = "it has had its requests" if is_full else "its time is over"
            return Decision(Verdict.EXPIRE, f"{spent}: {'; '.join(missing) or 'nobody promoted it'}")
        return _GO_ON

    def missing(self, differences: Sequence[Difference]) -> list[str]:
        """What is not shown yet, by language; a language without any reply needs nothing."""
        found = {(item.language, item.measure): item for item in differences}
        missing = []
        for language in self._languages_with_traffic():
            fewest = min(side.num_replies.get(language, 0) for side in (self.candidate, self.stable))
            if fewest < self._config.min_requests:
                missing.append(f"{language} has {fewest} of {self._config.min_requests} replies")
                continue
            needed = [measure for measure in self._rules.allowed if self._is_needed(measure, language, found)]
            unsure = [measure for measure in needed if not _is_sound(found.get((language, measure)))]
            missing += [f"{measure.value} in {language} is not sure yet" for measure in unsure]
        return missing or ([] if self.candidate.num_total else ["no reply of the candidate yet"])

    def ended(self, outcome: Outcome, reason: str, now: datetime) -> TrialRecord:
        """The record of its end."""
        return replace(self.record, outcome=outcome, reason=reason, ended_at=now)

    def _languages_with_traffic(self) -> list[str]:
        return sorted(self.candidate.num_replies.keys() | self.stable.num_replies.keys())

    def _is_needed(self, measure: Measure, language: str, found: dict[tuple[str, Measure], Difference]) -> bool:
        """Whether a measure must be sound. One that no side has a value of (a reply too short to tell its language, an
        engine that measures no time) cannot be asked for."""
        if measure in _NEEDED:
            return bool(self.candidate.get(language, measure).num or self.stable.get(language, measure).num)
        item = found.get((language, measure))
        return item is not None and min(item.num_candidate, item.num_stable) >= self._config.min_requests


_GO_ON = Decision(Verdict.GO_ON, "")


def _is_sound(found: Difference | None) -> bool:
    return found is not None and found.finding is Finding.SOUND
