"""The controller over a simulated plant: it converges under the bound, stays there, and backs off in time.

The plant's time between tokens is ``base(load) * (1 + k * share * duty)`` while training runs, where share is the part
of the device that the trainer's partition takes; the time to the first token is ten times that. Nothing is random but
where a test says so: requests differ by a fixed pattern of up to two percent.
"""

import random
from collections import Counter, deque
from dataclasses import dataclass, field
from statistics import fmean

import pytest

from agent.completion import GenerationTiming
from service.config import SloConfig
from service.controller import Controller, Decision, Direction, Observation
from service.slo import LiveRequest, Quantity
from trainer.matched_steps import Matched
from trainer.pace import Pace, Pulse

TICK_S = 0.1
SIZES = (80, 132)
PATTERN = (0.0, 0.004, 0.008, 0.012, 0.016, 0.02)
REQUEST_S = 0.6


def pulse(
    *,
    step_ms: float = 0.0,
    num_steps: int = 0,
    train_share: float = 0.0,
    sizes: tuple[int, ...] = SIZES,
    matched: Matched | None = None,
) -> Pulse:
    return Pulse(
        duration_s=TICK_S,
        num_engine_steps=num_steps,
        step_p50_ms=step_ms,
        step_p99_ms=step_ms,
        step_max_ms=step_ms,
        busy_share=1.0 if num_steps else 0.0,
        engine_cpu_s=0.0,
        device_wait_s=0.0,
        train_share=train_share,
        num_microbatches=0,
        num_train_tokens=0,
        num_sms=0,
        partition_sizes=sizes,
        partition_reason=None,
        matched=matched or Matched(),
    )


@dataclass
class Plant:
    """An engine process with its worker, live traffic and rollouts, a tick at a time."""

    controller: Controller
    sizes: tuple[int, ...] = SIZES
    k: float = 1.0
    """How much a trainer with the whole device all of the time slows a token: 1 doubles it."""
    rollout_k: float = 0.0
    """How much each rollout adds, as a share of the time between tokens."""
    live_per_tick: int = 0
    num_live: int = 0
    tuning: bool = True
    wants_training: bool = True
    wants_rollouts: int = 0
    num_rollouts: int = 0
    now_s: float = 0.0
    decisions: list[Decision] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    """Time between tokens of each tick with live requests, without the pattern."""
    noise: float = 0.0
    """Deviation of what single requests and ticks measure, as a share."""
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    _lifetime: deque[float] = field(default_factory=lambda: deque(maxlen=round(REQUEST_S / TICK_S)))
    """Time between tokens of the ticks that a request runs through."""
    _number: int = 0

    @property
    def pace(self) -> Pace:
        return self.controller.pace

    @property
    def base_s(self) -> float:
        """6 ms alone, 9 ms with 100 sequences."""
        return 0.006 + 0.00003 * self.num_live

    def load(self, num_live: int) -> None:
        """From now on ``num_live`` requests run at a time."""
        self.num_live = num_live
        self.live_per_tick = round(num_live * TICK_S / REQUEST_S)

    def run(self, seconds: float) -> list[Decision]:
        """The decisions of so many seconds."""
        first = len(self.decisions)
        for _ in range(round(seconds / TICK_S)):
            self._tick()
        return self.decisions[first:]

    def _tick(self) -> None:
        self.now_s += TICK_S
        pace = self.pace
        training = self.tuning and self.wants_training and (pace.duty > 0 or not self.num_live)
        size = pace.num_sms / max(self.sizes) if self.sizes else 1.0
        undisturbed_s = self.base_s * (1 + self.rollout_k * self.num_rollouts)
        token_s = undisturbed_s + (self.base_s * self.k * size * pace.duty if training else 0.0)
        self._lifetime.append(token_s)
        if self.num_live:
            self.latencies.append(token_s)
        busy = self.num_live + self.num_rollouts > 0
        seen = Observation(
            now_s=self.now_s,
            finished=[self._finished(fmean(self._lifetime)) for _ in range(self.live_per_tick)],
            num_live=self.num_live,
            num_waiting=0,
            num_rollouts=self.num_rollouts,
            num_free=max(100 - self.num_live, 0),
            tuning=self.tuning,
            pulse=pulse(
                step_ms=token_s * 1000 * self._chance() if busy else 0.0,
                num_steps=12 if busy else 0,
                train_share=(pace.duty if busy else 1.0) if training else 0.0,
                sizes=self.sizes,
                matched=self._matched(token_s / undisturbed_s, token_s) if busy else None,
            ),
        )
        self.decisions.append(self.controller.decide(seen))
        self._run_rollouts(self.decisions[-1])

    def _matched(self, slowed: float, token_s: float) -> Matched:
        """A dozen steps of a tick differ by less than single requests do."""
        steps_s, prompts_s = (12 * token_s * self._chance(1 / 4) for _ in range(2))
        expected_s = 12 * token_s / slowed
        return Matched(
            steps_s=steps_s,
            expected_s=expected_s,
            prompt_steps_s=prompts_s,
            prompt_expected_s=expected_s,
            error=0.01 * bool(self.noise),
            num_steps=12,
            request_s=self.base_s * self.rollout_k,
        )

    def _run_rollouts(self, decision: Decision) -> None:
        """A rollout beyond the limit ends after a second, or at once when it loses its slot."""
        limit = min(self.wants_rollouts, decision.rollout_limit)
        gone = self.num_rollouts if decision.evict else max(self.num_rollouts // 10, 1)
        self.num_rollouts = max(limit, self.num_rollouts - gone) if self.num_rollouts > limit else limit

    def _finished(self, token_s: float) -> LiveRequest:
        self._number += 1
        gap_s = token_s * (1 + PATTERN[self._number % len(PATTERN)]) * self._chance()
        return LiveRequest(self.now_s - REQUEST_S, self.now_s, GenerationTiming(10 * gap_s, gap_s))

    def _chance(self, share: float = 1.0) -> float:
        return self.draw.lognormvariate(0.0, share * self.noise) if self.noise else 1.0


def plant(slo: SloConfig | None = None, **settings: object) -> Plant:
    return Plant(Controller(slo or SloConfig(inter_token_p99_ms=8.0, ttft_p99_ms=1000.0)), **settings)  # type: ignore[arg-type]


def moves(decisions: list[Decision]) -> Counter[Direction]:
    return Counter(move.direction for decision in decisions for move in decision.moves)


def test_it_converges_under_a_fixed_bound_and_stays() -> None:
    """6.6 ms without training and a bound of 8 ms allow a slowdown of 1.21, so 27 of 132 SMs: a quarter of the time on
    80 SMs is the highest rung that holds (20 / 132 = 0.15; half of the time, 40 / 132 = 0.30, is too much)."""
    rig = plant()
    rig.load(20)
    rig.run(60)
    settled = rig.run(120)
    # The requests' pattern puts their p99 2 % above.
    within = [latency * 1.02 <= 0.008 for latency in rig.latencies[-1200:]]
    assert sum(within) / len(within) > 0.97
    assert Counter(decision.pace for decision in settled).most_common(1)[0][0] == Pace(80, 0.25)


def test_it_does_not_oscillate() -> None:
    """A rung that was too much is tried again after 4, 8, 16, 32 and then 60 s: a move up and one down each time."""
    rig = plant()
    rig.load(20)
    assert moves(rig.run(60)).total() <= 14
    assert moves(rig.run(60)).total() <= 4
    assert moves(rig.run(60)).total() <= 4


def test_it_takes_the_whole_device_when_that_costs_nothing() -> None:
    """A trainer that slows nobody climbs to the top and stays."""
    rig = plant(k=0.0)
    rig.load(20)
    rig.run(30)
    assert rig.pace == Pace(132, 1.0)
    assert moves(rig.run(60)) == Counter()


def test_it_pauses_when_nothing_else_helps_and_tries_again() -> None:
    """Where the smallest rung is too much, training pauses; a minute later it is tried again."""
    rig = plant(k=20.0)
    rig.load(20)
    rig.run(120)
    paused = [decision.level == 0 for decision in rig.run(130)]
    assert sum(paused) / len(paused) > 0.95
    assert not all(paused)


def test_it_backs_off_within_a_second_of_load() -> None:
    """At the top when load comes that bears a quarter of the time on the partition: ten ticks later all is well."""
    rig = plant(k=0.0)
    rig.load(20)
    rig.run(30)
    rig.load(0)
    rig.run(30)
    assert rig.pace == Pace(132, 1.0)
    rig.k = 1.0
    rig.load(20)
    rig.run(1)
    assert rig.pace.num_sms * rig.pace.duty <= 20
    assert rig.latencies[-1] * 1.02 <= 0.008


def test_a_rise_of_the_load_backs_off_within_a_second_too() -> None:
    """From 20 to 60 sequences the base goes from 6.6 to 7.8 ms, which leaves room for a slowdown of 1.02."""
    rig = plant()
    rig.load(20)
    rig.run(60)
    assert rig.pace == Pace(80, 0.25)
    rig.load(60)
    rig.run(1.0)
    assert rig.latencies[-1] < 0.00825
    rig.run(2.0)
    assert rig.latencies[-1] <= 0.008


def test_the_level_survives_a_time_without_load() -> None:
    """The worker takes the whole device by itself then; the level is sent on unchanged and holds when load returns."""
    rig = plant()
    rig.load(20)
    rig.run(60)
    level = rig.decisions[-1].level
    rig.load(0)
    assert moves(rig.run(60)) == Counter()
    rig.load(20)
    assert rig.run(0.5)[-1].level == level


def test_the_whole_device_is_given_away_two_seconds_after_the_last_request() -> None:
    """Between two requests that come closer the level holds: a first token would wait for what was given away. With the
    first tick of load it holds again."""
    rig = plant()
    rig.load(20)
    rig.run(60)
    held = rig.pace
    rig.load(0)
    assert {decision.pace for decision in rig.run(1.9)} == {held}
    assert rig.run(0.3)[-1].pace == Pace(132, 1.0)
    rig.load(20)
    assert rig.run(0.1)[-1].pace == held


def test_without_live_requests_no_steps_are_compared() -> None:
    """The trainer would rest for the calm steps of an engine that runs rollouts, or nothing and then no step comes."""
    rig = plant(SloConfig(ratio=1.05))
    rig.load(20)
    assert all(decision.pace.compares for decision in rig.run(1))
    rig.load(0)
    assert rig.run(3)[-1].pace == Pace(132, 1.0, compares=False)


def test_it_recovers_when_the_load_falls() -> None:
    """With 2 sequences (6.06 ms) a slowdown of 1.29 is allowed by 8 ms and the pattern, of 1.03 with 60: higher rungs
    come back."""
    rig = plant()
    rig.load(60)
    rig.run(60)
    assert rig.decisions[-1].level <= 1
    rig.load(2)
    rig.run(90)
    assert rig.decisions[-1].level >= 3


def test_training_is_held_to_a_relative_bound_by_the_engines_steps() -> None:
    """0.25 * 80 / 132 * 0.3 = 4.5 % slower is within 5 %, twice that is not. No pause is needed for it, and the rung
    above is not even tried: it would cost twice as much."""
    rig = plant(SloConfig(ratio=1.05), k=0.3)
    rig.load(20)
    rig.run(20)
    settled = rig.run(180)
    assert {decision.pace for decision in settled} == {Pace(80, 0.25, compares=True)}
    assert settled[-1].slowdown == pytest.approx(1 + 0.25 * 80 / 132 * 0.3)


def test_a_pace_that_costs_far_too_much_goes_down_two_rungs() -> None:
    """Half of the time on 80 of 132 at k = 0.5 costs 15 %, three times what is allowed; a tenth of it 3 %."""
    rig = plant(SloConfig(ratio=1.05), k=0.5)
    rig.load(20)
    decisions = rig.run(1.5)
    first = next(decision for decision in decisions if decision.moves)
    assert (first.level, [move.direction for move in first.moves]) == (1, [Direction.DOWN])
    assert first.moves[0].reason == "inter_token: engine steps take 1.152 of their time without training"


def test_prompts_that_take_longer_hold_training_down_too() -> None:
    """Steps as a whole cost 2 %, those with prompts 12 %: the time to the first token has a bound as well."""
    controller = Controller(SloConfig(ratio=1.05))
    matched = Matched(0.102, 0.1, 0.056, 0.05, error=0.001, num_steps=12)
    decisions = [
        controller.decide(
            Observation(tick * TICK_S, (), 20, 0, 0, 80, tuning=True, pulse=pulse(train_share=1.0, matched=matched))
        )
        for tick in range(20)
    ]
    reasons = [move.reason for decision in decisions for move in decision.moves]
    assert reasons == ["ttft: engine steps take 1.120 of their time without training"]


def test_what_a_run_does_between_its_steps_does_not_hide_what_training_costs() -> None:
    """Half of the time on 80 costs 9 %; after 20 s of sampling, which costs nothing, it still goes down in a second."""
    rig = plant(SloConfig(ratio=1.05), k=0.3, wants_training=False)
    rig.load(20)
    rig.run(20)
    rig.wants_training = True
    assert moves(rig.run(1.5))[Direction.DOWN] == 1


def test_a_run_that_ends_while_training_costs_too_much_leaves_scoring_open() -> None:
    """What was measured last is no violation for ever: nobody trains any more."""
    controller = Controller(SloConfig(ratio=1.05))
    matched = Matched(0.12, 0.1, 0.06, 0.05, error=0.001, num_steps=12)

    def tick(number: int, train_share: float) -> Decision:
        beside = pulse(train_share=train_share, matched=matched)
        return controller.decide(Observation(number * TICK_S, (), 20, 0, 0, 80, tuning=False, pulse=beside))

    assert not [tick(number, 1.0) for number in range(20)][-1].scoring
    assert [tick(20 + number, 0.0) for number in range(40)][-1].scoring


def test_a_fixed_bound_does_not_ask_for_calm_steps() -> None:
    """They cost training time, and nothing is compared with them."""
    rig = plant()
    rig.load(20)
    assert not any(decision.pace.compares for decision in rig.run(5))


def test_rollouts_are_as_many_as_add_what_a_relative_bound_allows() -> None:
    """Each adds 0.8 % to a step: six are within 5 %, seven are not. None has to be tried first, and nothing pauses."""
    rig = plant(SloConfig(ratio=1.05), k=0.0, rollout_k=0.008, wants_rollouts=100)
    rig.load(20)
    decisions = rig.run(30)
    assert {decision.rollout_limit for decision in decisions[1:]} == {6}
    assert rig.num_rollouts == 6
    assert max(rig.latencies) == pytest.approx(0.0066 * 1.048)


def test_rollouts_that_cost_nothing_have_all_slots_under_a_relative_bound() -> None:
    """Of 80 free ones at most as many as would add 5 % at a thousandth each, which is as little as is believed."""
    rig = plant(SloConfig(ratio=1.05), k=0.0, rollout_k=0.0, wants_rollouts=100)
    rig.load(20)
    assert rig.run(5)[-1].rollout_limit == 50


def test_rollouts_lose_their_slots_when_load_comes_under_a_relative_bound() -> None:
    """A hundred are in flight, each adds 1 %: five are bearable."""
    rig = plant(SloConfig(ratio=1.05), k=0.0, rollout_k=0.01, wants_rollouts=100)
    rig.run(5)
    assert rig.num_rollouts == 100
    rig.load(20)
    decisions = rig.run(1)
    assert decisions[0].evict
    assert rig.num_rollouts == 5
    assert not any(decision.evict for decision in decisions[2:])


def test_scoring_is_not_held_back_by_a_percentile_that_a_relative_bound_does_not_judge() -> None:
    """The load's own ups and downs close no gate."""
    rig = plant(SloConfig(ratio=1.05), k=0.0, noise=0.3)
    rig.load(20)
    assert all(decision.scoring and decision.violations == () for decision in rig.run(60))


def used_share(k: float, num_live: int) -> float:
    """Of the whole device's time, by a trainer under a bound of 5 % above the baseline, over three minutes after one;
    requests differ by 30 % from each other, their number by its root."""
    rig = plant(SloConfig(ratio=1.05), k=k, noise=0.3)
    used = []
    for half_seconds in range(480):
        rig.load(max(1, round(rig.draw.gauss(num_live, num_live**0.5))))
        decisions = rig.run(0.5)
        if half_seconds >= 120:
            used += [decision.pace.duty * decision.pace.num_sms / max(SIZES) for decision in decisions]
    return fmean(used)


@pytest.mark.parametrize(("num_live", "least"), [(10, 0.8), (60, 0.9)])
def test_chance_does_not_keep_training_down(num_live: int, least: float) -> None:
    """Training that costs nothing has the whole device for most of the time, the more of it the more requests tell."""
    assert used_share(0.0, num_live) >= least


@pytest.mark.parametrize("num_live", [30, 60])
def test_chance_does_not_hide_what_training_costs(num_live: int) -> None:
    """The whole device would cost 10 %: half of it may be used, which costs 5. On average it is little more."""
    assert 0.3 <= used_share(0.1, num_live) <= 0.6


@pytest.mark.parametrize("num_live", [10, 60])
def test_what_the_bound_allows_is_used(num_live: int) -> None:
    """The whole device costs the 5 % that the bound allows: most of it is used."""
    assert used_share(0.05, num_live) >= 0.8


def test_the_baseline_is_that_of_the_load() -> None:
    """6.6 ms with 20 sequences, 7.5 ms with 50: what was measured with few does not bind what runs with many."""
    rig = plant(SloConfig(ratio=1.05), tuning=False)
    for num_live, expected_s in ((20, 0.0066), (50, 0.0075), (20, 0.0066)):
        rig.load(num_live)
        decision = rig.run(10)[-1]
        readings = {reading.quantity: reading for reading in decision.readings}
        assert readings[Quantity.INTER_TOKEN].baseline_s == pytest.approx(expected_s * 1.02, rel=0.02)


def test_without_partitions_the_ladder_is_of_duties() -> None:
    """On a CPU only the duty changes: 8 ms over 6.6 ms and the pattern allow a slowdown of 1.19, which is 0.1 of the
    time with k = 1; head-room, below 85 % of the bound, it has only when paused."""
    rig = plant(sizes=(), k=1.0)
    rig.load(20)
    duties = {decision.pace.duty for decision in rig.run(120)}
    assert duties <= {0.0, 0.1, 0.25, 0.5, 0.75, 1.0}
    assert all(decision.pace.num_sms == 0 for decision in rig.decisions)
    assert rig.pace.duty in (0.0, 0.1)


def test_the_ladder_begins_in_the_middle() -> None:
    """Paused, five duties of 80 SMs, then 132: of seven rungs the fourth, half of the time on 80."""
    rig = plant()
    rig.load(20)
    decision = rig.run(0.1)[-1]
    assert (decision.level, decision.top_level, decision.pace) == (3, 6, Pace(80, 0.5))


def test_nothing_measured_is_not_a_latency_of_zero() -> None:
    """Live requests that neither finish nor step for a while, or a worker that does not answer: nothing moves."""
    controller = Controller(SloConfig(inter_token_p99_ms=8.0, ttft_p99_ms=1000.0))
    for tick in range(200):
        answer = pulse(train_share=1.0) if tick % 2 == 0 else None
        seen = Observation(tick * TICK_S, (), 20, 0, 0, 80, tuning=True, pulse=answer)
        decision = controller.decide(seen)
        assert (decision.readings, decision.moves, decision.level) == ((), (), 3)


def test_a_few_slow_requests_are_no_violation() -> None:
    """Forty requests of which one took ten times as long are less than what p99 excludes with certainty; with nothing
    else known, nothing moves down."""
    controller = Controller(SloConfig(inter_token_p99_ms=8.0, ttft_p99_ms=1000.0))
    slow = LiveRequest(0.1, 0.9, GenerationTiming(0.06, 0.07))
    fast = LiveRequest(0.1, 0.9, GenerationTiming(0.06, 0.006))
    decisions = []
    for tick in range(1, 30):
        finished = [slow, *[fast] * 39] if tick == 10 else []
        seen = Observation(tick * TICK_S, finished, 20, 0, 0, 80, tuning=True, pulse=pulse(train_share=1.0))
        decisions.append(controller.decide(seen))
    assert moves(decisions)[Direction.DOWN] == 0
    assert all(decision.violations == () for decision in decisions)


def test_a_time_to_the_first_token_beyond_its_bound_steps_down() -> None:
    """The bound of the first token counts as the other does: 66 ms without training, 70 ms allowed."""
    rig = plant(SloConfig(inter_token_p99_ms=100.0, ttft_p99_ms=70.0))
    rig.load(20)
    rig.run(60)
    assert rig.latencies[-1] * 10 * 1.02 <= 0.070 * 1.02
    violated = [quantity for decision in rig.decisions for quantity in decision.violations]
    assert set(violated) == {Quantity.TTFT}


def test_training_is_not_judged_by_what_it_did_not_touch() -> None:
    """While the trainer rests between two steps, good latencies are no head-room of its level, nor are rollouts' bad
    ones its fault."""
    rig = plant(wants_training=False)
    rig.load(20)
    assert moves(rig.run(30)) == Counter()
    rig.rollout_k, rig.wants_rollouts = 0.05, 100
    assert moves(rig.run(30))[Direction.DOWN] == 0


def test_rollouts_are_cut_to_what_the_bound_bears() -> None:
    """8 ms over 6.6 ms and the pattern is 1.19: with 2 % for each, nine rollouts are bearable. Of 80 free slots 1/16 is
    five, 1/8 is ten: too many."""
    rig = plant(wants_training=False, rollout_k=0.02, wants_rollouts=100)
    rig.load(20)
    rig.run(60)
    settled = rig.run(120)
    assert moves(settled)[Direction.ROLLOUTS_DOWN] <= 4
    within = [latency * 1.02 <= 0.008 for latency in rig.latencies[-1200:]]
    assert sum(within) / len(within) > 0.9
    assert min(decision.rollout_limit for decision in settled) >= 1


def test_a_single_rollout_that_is_too_much_comes_back_after_a_second() -> None:
    """At the lowest limit a violation lets none in for a second, then one again."""
    rig = plant(wants_training=False, rollout_k=1.0, wants_rollouts=100)
    rig.load(20)
    rig.run(30)
    limits = [decision.rollout_limit for decision in rig.run(30)]
    assert set(limits) == {0, 1}


def test_rollouts_far_beyond_the_bound_lose_their_slots() -> None:
    """A hundred rollouts are in flight when load comes, and one alone costs a tenth: within a second a few are left."""
    rig = plant(wants_training=False, rollout_k=0.1, wants_rollouts=100)
    rig.run(5)
    assert rig.num_rollouts == 100
    rig.load(20)
    decisions = rig.run(1)
    assert any(decision.evict for decision in decisions)
    assert rig.num_rollouts <= 2


def test_without_live_requests_rollouts_have_all_slots() -> None:
    """Two seconds after the last live request the limit is what is free; with load it is a share of it again."""
    rig = plant(wants_training=False, rollout_k=0.02, wants_rollouts=100)
    rig.load(20)
    loaded = rig.run(30)[-1].rollout_limit
    assert loaded < 20
    rig.load(0)
    assert rig.run(1.9)[-1].rollout_limit < 20
    assert rig.run(0.3)[-1].rollout_limit == 100
    rig.load(20)
    assert rig.run(0.1)[-1].rollout_limit == loaded


def test_waiting_live_requests_keep_rollouts_out() -> None:
    """While live requests queue for the engine no further rollout enters."""
    controller = Controller(SloConfig())
    seen = Observation(1.0, (), 120, 20, 3, 0, tuning=True, pulse=pulse())
    assert controller.decide(seen).rollout_limit == 0


def test_scoring_waits_while_the_bound_is_broken() -> None:
    """Closed from the violation on, open again a second after the last one."""
    rig = plant(k=0.0)
    rig.load(20)
    assert all(decision.scoring for decision in rig.run(30))
    rig.k = 1.0
    scoring = [decision.scoring for decision in rig.run(30)]
    assert not all(scoring)
    assert scoring[-1]


def test_a_new_engine_with_other_partitions_gets_its_own_ladder() -> None:
    """After a restart on another device the level begins in the middle of what that one has."""
    rig = plant(k=0.0)
    rig.load(20)
    rig.run(30)
    rig.sizes = (24, 114)
    decision = rig.run(0.1)[-1]
    assert (decision.level, decision.top_level, decision.pace) == (3, 6, Pace(24, 0.5))
