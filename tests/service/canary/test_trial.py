"""One trial: who takes part, what harm is, and when it ends."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.ports import Audience
from service.bench.canary import SCENARIOS, Rates, Traffic, simulate, table
from service.canary.comparison import Finding
from service.canary.config import CanaryConfig
from service.canary.records import Kind, StoredTrial, TrialRecord
from service.canary.tally import Measure, Side
from service.canary.trial import Trial, Verdict

START = datetime(2026, 1, 1, tzinfo=UTC)
RECORD = TrialRecord("canary-v5-0", Kind.CANARY, 5, 4, ("de", "pl"), START, share=0.5)
CONFIG = CanaryConfig(min_requests=20, min_duration_s=60, max_duration_s=600, scored_per_minute=60)
LATE = START + timedelta(seconds=61)


def trial(config: CanaryConfig = CONFIG, record: TrialRecord = RECORD) -> Trial:
    return Trial(StoredTrial(record), config)


def fill(side: Side, num: int, *, language: str = "de", reward: float = 0.6, broken_every: int = 0) -> None:
    """So many replies, every one of them timed and scored; rewards alternate by 0.1 around the mean."""
    for number in range(num):
        side.count(language)
        side.add(language, Measure.REWARD, reward + (0.1 if number % 2 else -0.1))
        side.add(language, Measure.CONTRACT_FAILURES, float(broken_every > 0 and number % broken_every == 0))
        side.add(language, Measure.FAILURES, 0.0)
        side.add(language, Measure.LATENCY, 0.0)


def test_a_side_is_the_hashs_and_the_version_must_fit() -> None:
    """Who names another version, or is answered by one in passing, is on no side."""
    one = trial()
    audience = next(a for a in (Audience("acme", "de", f"u{n}", True) for n in range(99)) if one.split.takes(a))
    assert one.side_of(audience, 5) is one.candidate
    assert one.side_of(audience, 4) is None
    assert one.side_of(replace(audience, language="fr"), 5) is None


def test_one_person_counts_so_often_and_no_more() -> None:
    """Requests that name nobody always count."""
    one = trial(CONFIG.model_copy(update={"per_end_user": 2}))
    named, unnamed = Audience("acme", "de", "u1", True), Audience("acme", "de", "req_1")
    assert [one.counts(named) for _ in range(3)] == [True, True, False]
    assert [one.counts(unnamed) for _ in range(3)] == [True, True, True]


def test_people_who_always_fail_are_few_draws() -> None:
    """Ten people of twenty replies each on either side; two of the candidate's ten break every contract, none of the
    stable side's. As 200 single replies, 40 of which broke, that was harm of 0.2 (0.106 to 0.294)."""
    one = trial()
    for number in range(200):
        for side in (one.candidate, one.stable):
            side.count("de")
        person = number // 20
        one.candidate.add("de", Measure.CONTRACT_FAILURES, float(person < 2), f"c{person}")
        one.stable.add("de", Measure.CONTRACT_FAILURES, 0.0, f"s{person}")
    (found,) = one.differences()
    assert found.harm == pytest.approx(0.2)
    assert found.finding is Finding.OPEN
    assert one.decide([found], LATE).verdict is Verdict.GO_ON


def test_a_few_people_are_not_looked_at() -> None:
    """Twenty replies each of two people: how people vary cannot be told from two, whatever became of them."""
    one = trial()
    for number in range(40):
        one.candidate.add("de", Measure.CONTRACT_FAILURES, 1.0, f"c{number % 2}")
        one.stable.add("de", Measure.CONTRACT_FAILURES, 0.0)
    assert one.differences() == []


def test_an_equal_candidate_is_hardly_ever_stopped_where_people_differ() -> None:
    """200 people whose mean rewards deviate by 0.18, and of whom one in twenty gets nothing in the language: of 20
    canaries at most one is stopped. It was 9 of 20 while each of a person's replies counted as a draw."""
    traffic = Traffic(num_requests=4_000, num_people=200, person_deviation=0.18, failing_people=0.05)
    rates = Rates.of(simulate(traffic, CanaryConfig(), seed) for seed in range(20))
    assert rates.num_stopped <= 1


def test_a_clear_drop_in_one_language_is_harm() -> None:
    """Rewards 0.2 instead of 0.6 in Polish stop it, whatever German does; the reason names language and measure."""
    one = trial()
    fill(one.candidate, 200)
    fill(one.stable, 200)
    fill(one.candidate, 200, language="pl", reward=0.2)
    fill(one.stable, 200, language="pl")
    decision = one.decide(one.differences(), LATE)
    assert decision.verdict is Verdict.STOP
    assert decision.reason.startswith("reward in pl is 0.400 worse (")


def test_a_drop_below_what_is_allowed_is_no_harm() -> None:
    """0.05 of an allowed 0.1: told apart from 0 at 5,000 replies, and still not harm but sound."""
    one = trial()
    fill(one.candidate, 5_000, reward=0.55)
    fill(one.stable, 5_000, reward=0.6)
    reward = next(found for found in one.differences() if found.measure is Measure.REWARD)
    assert reward.harm == pytest.approx(0.05)
    assert reward.lower > 0
    assert reward.finding is Finding.SOUND


def test_broken_contracts_are_harm() -> None:
    """Every second reply against none."""
    one = trial()
    fill(one.candidate, 60, broken_every=2)
    fill(one.stable, 600)
    found = [item for item in one.differences() if item.finding is Finding.HARM]
    assert [item.measure for item in found] == [Measure.CONTRACT_FAILURES]


def test_feedback_can_stop_and_is_not_waited_for() -> None:
    """No ratings: promoted all the same. Ratings that fell: harm."""
    one = trial()
    for side in (one.candidate, one.stable):
        fill(side, 3_000)
    assert one.decide(one.differences(), LATE).verdict is Verdict.PROMOTE
    for _ in range(60):
        one.candidate.add("de", Measure.FEEDBACK, 0.1)
        one.stable.add("de", Measure.FEEDBACK, 0.9)
    decision = one.decide(one.differences(), LATE)
    assert decision.verdict is Verdict.STOP
    assert decision.reason.startswith("feedback in de is 0.800 worse")


def test_promotion_waits_for_the_time_and_for_every_language_with_traffic() -> None:
    """Sound in German at once, but not before a minute; a few Polish replies must become enough."""
    one = trial()
    for side in (one.candidate, one.stable):
        fill(side, 3_000)
    assert one.decide(one.differences(), START).verdict is Verdict.GO_ON
    one.stable.count("pl")
    decision = one.decide(one.differences(), LATE)
    assert decision.verdict is Verdict.GO_ON
    assert one.missing(one.differences()) == ["pl has 0 of 20 replies"]
    for side in (one.candidate, one.stable):
        fill(side, 3_000, language="pl")
    assert one.decide(one.differences(), LATE).verdict is Verdict.PROMOTE


def test_a_canary_that_is_never_shown_to_be_sound_expires() -> None:
    """At its age, or once it has had its requests; the reason says what was missing."""
    one = trial()
    fill(one.candidate, 30)
    fill(one.stable, 30)
    decision = one.decide(one.differences(), START + timedelta(seconds=600))
    assert decision.verdict is Verdict.EXPIRE
    assert decision.reason.startswith("its time is over: reward in de is not sure yet")
    full = trial(CONFIG.model_copy(update={"max_requests": 30}))
    fill(full.candidate, 30)
    fill(full.stable, 30)
    assert full.decide(full.differences(), START).verdict is Verdict.EXPIRE


def test_a_canary_that_nobody_promotes_expires() -> None:
    """With auto_promote off it waits, and then its time is over."""
    one = trial(CONFIG.model_copy(update={"auto_promote": False}))
    for side in (one.candidate, one.stable):
        fill(side, 3_000)
    assert one.decide(one.differences(), LATE).verdict is Verdict.PROMOTE
    late = one.decide(one.differences(), START + timedelta(seconds=600))
    assert (late.verdict, late.reason) == (Verdict.EXPIRE, "its time is over: nobody promoted it")


def test_a_watch_compares_no_latency_and_passes_when_its_time_is_over() -> None:
    """Its two sides have not run under the same load."""
    watch = trial(
        CONFIG.model_copy(update={"watch_s": 100.0}), replace(RECORD, kind=Kind.WATCH, share=1.0, languages=("de",))
    )
    fill(watch.candidate, 100)
    fill(watch.stable, 100)
    for _ in range(100):
        watch.candidate.add("de", Measure.LATENCY, 3.0)
    assert watch.decide(watch.differences(), LATE).verdict is Verdict.GO_ON
    assert watch.decide(watch.differences(), START + timedelta(seconds=100)).verdict is Verdict.PROMOTE
    assert watch.side_of(Audience("acme", "de", "anybody"), 5) is watch.candidate


HARMFUL = [Traffic(reward_drop=0.25), Traffic(contract_failure_rise=0.35)]


@pytest.mark.parametrize("traffic", HARMFUL, ids=["reward", "contract"])
def test_a_harmful_candidate_is_stopped_in_every_seed(traffic: Traffic) -> None:
    """One language of four gets worse, a tenth of the requests try it: 20 of 20 within 4,000 requests."""
    config = CanaryConfig(max_requests=10**6)
    endings = [simulate(replace(traffic, num_requests=4_000, look_every=100), config, seed) for seed in range(20)]
    rates = Rates.of(endings)
    assert (rates.num_stopped, rates.num_seeds) == (20, 20)
    assert all(" in de is " in ending.reason for ending in endings)


def test_an_equal_candidate_is_hardly_ever_stopped() -> None:
    """200 seeds, looked at every 25 requests: at most 5 % may be stopped, by the configuration's error rate."""
    config = CanaryConfig(max_requests=10**6, share=0.5)
    traffic = Traffic(num_requests=1_000, look_every=25)
    rates = Rates.of(simulate(traffic, config, seed) for seed in range(200))
    assert rates.num_stopped <= 10
    assert rates.num_seeds == 200


def test_the_bench_prints_a_line_for_each_scenario() -> None:
    """`coloq bench canary`: rates of every planted harm, and of an equal candidate."""
    lines = table(CanaryConfig(share=0.5), num_seeds=2, num_requests=200).splitlines()
    assert lines[0].startswith("2 seeds, 4 languages, share 0.5")
    assert [line[:54].strip() for line in lines[2:]] == list(SCENARIOS)
