"""How often a canary ends wrongly, on simulated traffic: the real split, sums, intervals and decision, no engine.

Rewards are normal around a language's mean, contract failures and engine failures are coin flips, latencies are
log-normal. A harmful candidate is worse by a planted amount in one language; an equal one is drawn from the same
distributions. The trial is looked at after every ``look_every`` requests, as the node does every two seconds. Where
people come again, each has a mean reward of their own in a language, and some of them nothing but broken contracts.
"""

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from agent.ports import Audience
from service.canary.cap import group_of
from service.canary.config import CanaryConfig
from service.canary.records import Kind, StoredTrial, TrialRecord
from service.canary.tally import Measure, Side
from service.canary.trial import Trial, Verdict

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
LANGUAGES = ("de", "en", "pl", "tr")


@dataclass(frozen=True, slots=True)
class Traffic:
    """Simulated requests, and how much worse the candidate is in the first language."""

    languages: tuple[str, ...] = LANGUAGES
    num_requests: int = 20_000
    look_every: int = 50
    reward_mean: float = 0.6
    reward_deviation: float = 0.25
    contract_failure_share: float = 0.03
    failure_share: float = 0.002
    latency_deviation: float = 0.4
    """Of the logarithm."""
    reward_drop: float = 0.0
    contract_failure_rise: float = 0.0
    num_people: int | None = None
    """End users whom the requests are of; None is another one each time."""
    person_deviation: float = 0.0
    """Of people's mean rewards; part of ``reward_deviation``."""
    failing_people: float = 0.0
    """Share of people all of whose replies in a language break the contract."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one simulated canary ended, after how many requests in all and how many of the candidate."""

    verdict: Verdict
    num_requests: int
    num_candidate: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rates:
    """Endings of many canaries."""

    num_seeds: int
    num_stopped: int
    num_promoted: int
    num_undecided: int
    requests_median: int
    requests_max: int

    @classmethod
    def of(cls, endings: Iterable[Ending]) -> "Rates":
        """Counts of at least one ending."""
        found = list(endings)
        requests = sorted(ending.num_requests for ending in found)
        verdicts = [ending.verdict for ending in found]
        return cls(
            num_seeds=len(found),
            num_stopped=verdicts.count(Verdict.STOP),
            num_promoted=verdicts.count(Verdict.PROMOTE),
            num_undecided=verdicts.count(Verdict.EXPIRE) + verdicts.count(Verdict.GO_ON),
            requests_median=requests[len(requests) // 2],
            requests_max=requests[-1],
        )


def simulate(traffic: Traffic, config: CanaryConfig, seed: int) -> Ending:
    """One canary from its first request to its end, or to the end of the traffic."""
    rng = random.Random(seed)
    record = TrialRecord(
        f"seed-{seed}", Kind.CANARY, 2, 1, tuple(sorted(traffic.languages)), _BEGINNING, share=config.share
    )
    trial = Trial(StoredTrial(record), config)
    late = _BEGINNING + timedelta(seconds=config.min_duration_s)
    for number in range(1, traffic.num_requests + 1):
        language = traffic.languages[number % len(traffic.languages)]
        audience = _audience(traffic, language, rng, f"{seed}", number)
        takes = trial.split.takes(audience)
        side = trial.side_of(audience, record.candidate if takes else record.stable)
        assert side is not None
        if trial.counts(audience):
            _reply(side, audience, traffic, rng, worse=takes and language == traffic.languages[0])
        if number % traffic.look_every == 0:
            decision = trial.decide(trial.differences(), late)
            if decision.verdict is not Verdict.GO_ON:
                return Ending(decision.verdict, number, trial.candidate.num_total, decision.reason)
    return Ending(Verdict.GO_ON, traffic.num_requests, trial.candidate.num_total, "the traffic ended")


def _audience(traffic: Traffic, language: str, rng: random.Random, seed: str, number: int) -> Audience:
    if traffic.num_people is None:
        return Audience("acme", language, f"{seed}-{number}")
    return Audience("acme", language, f"{seed}-{rng.randrange(traffic.num_people)}", is_named=True)


def _reply(side: Side, audience: Audience, traffic: Traffic, rng: random.Random, *, worse: bool) -> None:
    """One request that was answered or failed."""
    language, group = audience.language, group_of(audience)
    side.count(language)
    person = random.Random(f"{audience.subject} {language}")
    mean = traffic.reward_mean - (traffic.reward_drop if worse else 0.0) + person.gauss(0, traffic.person_deviation)
    deviation = math.sqrt(traffic.reward_deviation**2 - traffic.person_deviation**2)
    broken = traffic.contract_failure_share + (traffic.contract_failure_rise if worse else 0.0)
    if person.random() < traffic.failing_people:
        broken = 1.0
    side.add(language, Measure.REWARD, min(max(rng.gauss(mean, deviation), -1.0), 1.0), group)
    side.add(language, Measure.CONTRACT_FAILURES, float(rng.random() < broken), group)
    side.add(language, Measure.FAILURES, float(rng.random() < traffic.failure_share), group)
    side.add(language, Measure.LATENCY, rng.gauss(0.0, traffic.latency_deviation), group)


SCENARIOS: Mapping[str, Traffic] = {
    "equal": Traffic(),
    "equal, 200 people who differ": Traffic(num_people=200, person_deviation=0.18, failing_people=0.05),
    "reward 0.15 lower in one language": Traffic(reward_drop=0.15),
    "reward 0.25 lower in one language": Traffic(reward_drop=0.25),
    "a third of one language's replies break the contract": Traffic(contract_failure_rise=0.3),
}


def table(config: CanaryConfig, num_seeds: int, num_requests: int) -> str:
    """The rates of every scenario, one line each."""
    setting = f"share {config.share:g}, error rate {config.error_rate:g}, at most {num_requests} requests"
    lines = [
        f"{num_seeds} seeds, {len(LANGUAGES)} languages, {setting}",
        f"{'candidate':<54}{'stopped':>9}{'promoted':>10}{'open':>6}{'requests, median':>18}{'most':>8}",
    ]
    for name, traffic in SCENARIOS.items():
        chosen = replace(traffic, num_requests=num_requests)
        rates = Rates.of(simulate(chosen, config, seed) for seed in range(num_seeds))
        lines.append(
            f"{name:<54}{rates.num_stopped:>9}{rates.num_promoted:>10}{rates.num_undecided:>6}"
            f"{rates.requests_median:>18}{rates.requests_max:>8}"
        )
    return "\n".join(lines)
