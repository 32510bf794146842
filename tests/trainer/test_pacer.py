"""Who may run when: the engine's steps and the learner's micro-batches on one clock, which only `sleep` moves."""

from collections.abc import Callable

import pytest

from trainer.pace import Pace, Pulse
from trainer.pacer import Pacer
from trainer.step_trace import StepTrace, TracedMicrobatch, TracedStep

SIZES = (64, 104, 132)
NEVER_S = 60.0
"""A test that waits for so long has waited in vain."""


class Timeline:
    """Seconds since the start; at some of them something happens."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, Callable[[], object]]] = []

    def at(self, time_s: float, event: Callable[[], object]) -> None:
        self._events.append((time_s, event))
        self._events.sort(key=lambda item: item[0])

    def go_to(self, time_s: float) -> None:
        while self._events and self._events[0][0] <= time_s:
            self.now, event = self._events.pop(0)
            event()
        self.now = time_s

    def sleep(self, duration_s: float) -> None:
        assert self.now < NEVER_S, "waited in vain"
        self.go_to(self.now + duration_s)


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


@pytest.fixture
def pacer(timeline: Timeline) -> Pacer:
    return Pacer(SIZES, None, clock=lambda: timeline.now, sleep=timeline.sleep)


def run_engine(timeline: Timeline, pacer: Pacer, starts: list[float], *, step_s: float = 0.01) -> None:
    """Steps of ``step_s`` at these times."""
    for start in starts:
        timeline.go_to(start)
        pacer.begin_step()
        timeline.go_to(start + step_s)
        pacer.end_step()


def train(timeline: Timeline, pacer: Pacer, duration_s: float, *, num_sms: int = 64, num_tokens: int = 1) -> None:
    """A micro-batch from now on."""
    pacer.begins()
    timeline.go_to(timeline.now + duration_s)
    pacer.ran(duration_s, num_sms=num_sms, num_tokens=num_tokens)


def test_an_idle_engine_leaves_the_whole_gpu_at_once(timeline: Timeline, pacer: Pacer) -> None:
    """Whatever the pace says, and also before the first step."""
    pacer.exchange(Pace(num_sms=64, duty=0.0))
    assert pacer.turn() == 132
    assert timeline.now == 0.0


def test_a_busy_engine_leaves_the_paces_partition(timeline: Timeline, pacer: Pacer) -> None:
    """At once as long as the duty is 1; before the first order the middle one of the sizes."""
    pacer.begin_step()
    assert pacer.turn() == 104
    pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert pacer.turn() == 64
    assert timeline.now == 0.0


def test_an_engine_is_idle_a_second_after_its_last_step(timeline: Timeline, pacer: Pacer) -> None:
    """A request that comes within it finds the pace's partition; a step that runs is never idle, however long."""
    pacer.begin_step()
    timeline.go_to(5.0)
    assert pacer.turn() == 104
    pacer.end_step()
    timeline.go_to(5.99)
    assert pacer.turn() == 104
    timeline.go_to(6.01)
    assert pacer.turn() == 132


def test_a_time_without_work_is_no_slow_step(timeline: Timeline, pacer: Pacer) -> None:
    """Steps of 10 ms, 0.3 s apart: their gaps are not counted, though the engine is not idle yet."""
    run_engine(timeline, pacer, [0.0, 0.3, 0.6])
    assert pacer.turn() == 104
    assert pacer.exchange(Pace(104, 1.0)).num_engine_steps == 0


def test_an_engine_is_busy_until_its_last_step_has_been_read(timeline: Timeline, pacer: Pacer) -> None:
    """The next step begins before the last one is read, and a slow device lets both take long: the trainer must not be
    given the whole GPU, which would make them slower still. Their gap counts as any other."""
    pacer.begin_step()
    timeline.go_to(0.3)
    pacer.begin_step()
    timeline.go_to(0.4)
    pacer.end_step()
    timeline.go_to(0.7)
    assert pacer.turn() == 104
    pacer.end_step()
    timeline.go_to(1.69)
    assert pacer.turn() == 104
    timeline.go_to(1.71)
    assert pacer.turn() == 132
    assert pacer.exchange(Pace(104, 1.0)).step_max_ms == pytest.approx(300)


@pytest.mark.parametrize(
    ("duty", "wait_s"),
    [
        (1.0, 0.0),
        (0.5, 0.2),  # 0.2 s x (1 / 0.5 - 1)
        (0.25, 0.6),  # 0.2 s x (1 / 0.25 - 1)
    ],
)
def test_a_micro_batch_is_followed_by_its_share_of_rest(
    timeline: Timeline, pacer: Pacer, duty: float, wait_s: float
) -> None:
    """A micro-batch of d seconds at a duty of q waits d x (1 / q - 1), so that d is q of the whole."""
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=64, duty=duty))
    assert pacer.turn() == 64
    train(timeline, pacer, 0.2)
    ended_s = timeline.now
    assert pacer.turn() == 64
    assert timeline.now - ended_s == pytest.approx(wait_s, abs=0.011)


def test_rest_ends_when_the_engine_falls_idle(timeline: Timeline, pacer: Pacer) -> None:
    """0.2 s at a duty of 0.1 would wait 1.8 s, to 2.0; the engine's last step ends at 0.5, and a second later it is
    idle."""
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=64, duty=0.1))
    train(timeline, pacer, 0.2)
    timeline.at(0.5, pacer.end_step)
    assert pacer.turn() == 132
    assert timeline.now == pytest.approx(1.5, abs=0.021)


def test_without_duty_training_waits_for_an_idle_engine(timeline: Timeline, pacer: Pacer) -> None:
    """A pause is a duty of 0."""
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=64, duty=0.0))
    timeline.at(3.0, pacer.end_step)
    assert pacer.turn() == 132
    assert timeline.now == pytest.approx(4.0, abs=0.021)


def test_without_duty_training_waits_for_another_pace(timeline: Timeline, pacer: Pacer) -> None:
    """What the micro-batch before the pause owed, 99 times its 0.2 s, is forgotten then."""
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=64, duty=0.0))
    train(timeline, pacer, 0.2)
    timeline.at(3.0, lambda: pacer.exchange(Pace(num_sms=104, duty=0.5)))
    assert pacer.turn() == 104
    assert timeline.now == pytest.approx(3.0, abs=0.011)


def test_a_lower_duty_forgives_nothing(timeline: Timeline, pacer: Pacer) -> None:
    """0.2 s at 0.5 wait until 0.4 s; an order of 0.25 in between changes only what comes after."""
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=64, duty=0.5))
    train(timeline, pacer, 0.2)
    timeline.at(0.3, lambda: pacer.exchange(Pace(num_sms=64, duty=0.25)))
    assert pacer.turn() == 64
    assert timeline.now == pytest.approx(0.4, abs=0.011)


def test_a_stop_ends_the_wait(timeline: Timeline, pacer: Pacer) -> None:
    """The learner that is told to stop does not wait for its turn."""
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=64, duty=0.0))
    assert pacer.turn(lambda: timeline.now > 1.0) == 64
    assert timeline.now == pytest.approx(1.0, abs=0.021)


def test_time_is_rationed_while_the_engine_is_busy_and_the_duty_below_one(timeline: Timeline, pacer: Pacer) -> None:
    """Not when it is idle, and not at a duty of 1."""
    pacer.exchange(Pace(num_sms=64, duty=0.5))
    assert not pacer.rationed
    pacer.begin_step()
    assert pacer.rationed
    pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert not pacer.rationed


def test_without_partitions_a_lane_has_no_size(timeline: Timeline) -> None:
    """On a CPU; the duty counts there too."""
    pacer = Pacer((), "not a CUDA device", clock=lambda: timeline.now, sleep=timeline.sleep)
    assert pacer.turn() == 0
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=0, duty=0.5))
    train(timeline, pacer, 0.2)
    assert pacer.turn() == 0
    assert timeline.now == pytest.approx(0.4, abs=0.011)
    pulse = pacer.exchange(Pace(num_sms=0, duty=1.0))
    assert (pulse.partition_sizes, pulse.partition_reason) == ((), "not a CUDA device")


def test_gaps_are_those_between_the_starts_of_steps(timeline: Timeline, pacer: Pacer) -> None:
    """Starts at 0, 20, 50, 60 and 100 ms: gaps of 20, 30, 10 and 40. Of four sorted values the second is the least that
    half of them do not exceed, and the fourth the least for 99 of 100."""
    run_engine(timeline, pacer, [0.0, 0.02, 0.05, 0.06, 0.1])
    timeline.go_to(0.2)
    pulse = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert pulse.num_engine_steps == 4
    assert (pulse.step_p50_ms, pulse.step_p99_ms, pulse.step_max_ms) == pytest.approx((20, 40, 40))
    assert pulse.duration_s == pytest.approx(0.2)
    assert pulse.busy_share == pytest.approx(0.5)  # 100 of 200 ms


def test_the_engines_thread_computes_and_waits(timeline: Timeline) -> None:
    """Its CPU time is that between two pulses; of its waits each is in one pulse."""
    cpu_s = iter([10.0, 10.08, 10.1])
    pacer = Pacer(SIZES, None, clock=lambda: timeline.now, cpu_clock=lambda: next(cpu_s))
    pacer.waited(0.01)
    pacer.waited(0.02)
    first, second = (pacer.exchange(Pace(num_sms=64, duty=1.0)) for _ in range(2))
    assert (first.engine_cpu_s, second.engine_cpu_s) == pytest.approx((0.08, 0.02))
    assert (first.device_wait_s, second.device_wait_s) == pytest.approx((0.03, 0.0))


def test_quantiles_of_two_hundred_gaps(timeline: Timeline, pacer: Pacer) -> None:
    """197 gaps of 20 ms, then 25, 30 and 45: the 198th of 200 is the 99th percentile."""
    starts = [0.02 * number for number in range(198)]
    starts += [starts[-1] + after for after in (0.025, 0.055, 0.1)]
    run_engine(timeline, pacer, starts)
    pulse = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert pulse.num_engine_steps == 200
    assert (pulse.step_p50_ms, pulse.step_p99_ms, pulse.step_max_ms) == pytest.approx((20, 25, 45))


def test_time_without_work_is_no_gap(timeline: Timeline, pacer: Pacer) -> None:
    """Steps at 0 and 20 ms, nothing for a second, steps at 1 s and 1.03 s."""
    run_engine(timeline, pacer, [0.0, 0.02, 1.0, 1.03])
    pulse = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert pulse.num_engine_steps == 2
    assert pulse.step_max_ms == pytest.approx(30)


@pytest.mark.parametrize(("step_s", "num_steps"), [(1.9, 1), (2.0, 0)])
def test_a_gap_of_two_seconds_is_no_step(timeline: Timeline, pacer: Pacer, step_s: float, num_steps: int) -> None:
    """However busy the engine says it is."""
    run_engine(timeline, pacer, [0.0, step_s], step_s=step_s)
    pulse = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert pulse.num_engine_steps == num_steps


def test_a_pulse_without_steps_has_zeros(timeline: Timeline, pacer: Pacer) -> None:
    """And names what a pace may ask for."""
    timeline.go_to(1.0)
    pulse = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert (pulse.num_engine_steps, pulse.step_p50_ms, pulse.step_p99_ms, pulse.step_max_ms) == (0, 0, 0, 0)
    assert (pulse.busy_share, pulse.train_share, pulse.num_microbatches, pulse.num_sms) == (0, 0, 0, 0)
    assert (pulse.partition_sizes, pulse.partition_reason) == (SIZES, None)


def test_a_pulse_counts_micro_batches(timeline: Timeline, pacer: Pacer) -> None:
    """0.2 and 0.3 s of one second, 1024 and 512 positions; the newest ran on the whole GPU."""
    train(timeline, pacer, 0.2, num_sms=64, num_tokens=1024)
    train(timeline, pacer, 0.3, num_sms=132, num_tokens=512)
    timeline.go_to(1.0)
    pulse = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert (pulse.num_microbatches, pulse.num_train_tokens, pulse.num_sms) == (2, 1536, 132)
    assert pulse.train_share == pytest.approx(0.5)


def test_a_running_micro_batch_counts_up_to_the_exchange(timeline: Timeline, pacer: Pacer) -> None:
    """From 1 s to 4 s: two of the first three seconds, one of the next two."""
    timeline.go_to(1.0)
    pacer.begins()
    timeline.go_to(3.0)
    first = pacer.exchange(Pace(num_sms=64, duty=1.0))
    timeline.go_to(4.0)
    pacer.ran(3.0, num_sms=64, num_tokens=7)
    timeline.go_to(5.0)
    second = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert (first.train_share, second.train_share) == pytest.approx((2 / 3, 1 / 2))
    assert (first.num_microbatches, second.num_microbatches) == (0, 1)


def test_micro_batches_that_overlap_count_once(timeline: Timeline, pacer: Pacer) -> None:
    """Started at 0 and 1 s, ended at 2 and 3 s: three of four seconds."""
    pacer.begins()
    timeline.go_to(1.0)
    pacer.begins()
    timeline.go_to(2.0)
    pacer.ran(2.0, num_sms=64, num_tokens=1)
    timeline.go_to(3.0)
    pacer.ran(1.0, num_sms=64, num_tokens=1)
    timeline.go_to(4.0)
    assert pacer.exchange(Pace(num_sms=64, duty=1.0)).train_share == pytest.approx(0.75)


def test_an_exchange_begins_anew(timeline: Timeline, pacer: Pacer) -> None:
    """The second pulse holds only what came after the first, with the gap that began before it."""
    run_engine(timeline, pacer, [0.0, 0.04, 0.08])
    train(timeline, pacer, 0.01, num_tokens=9)
    first = pacer.exchange(Pace(num_sms=64, duty=1.0))  # at 0.1 s
    run_engine(timeline, pacer, [0.11])
    timeline.go_to(0.3)
    second = pacer.exchange(Pace(num_sms=64, duty=1.0))
    assert (first.num_engine_steps, second.num_engine_steps) == (2, 1)
    assert second.step_max_ms == pytest.approx(30)
    assert (first.num_train_tokens, second.num_train_tokens, second.num_sms) == (9, 0, 0)
    assert (first.duration_s, second.duration_s) == pytest.approx((0.1, 0.2))


def step_on(timeline: Timeline, pacer: Pacer, num: int, *, gap_s: float = 0.01) -> None:
    """So many steps of four requests, from now on."""
    for _ in range(num):
        pacer.begin_step(4, 0)
        timeline.go_to(timeline.now + gap_s)
        pacer.end_step()


def matched_ratio(pulse: Pulse) -> float:
    return pulse.matched.steps_s / pulse.matched.expected_s


def test_steps_beside_a_micro_batch_are_compared_with_those_without(timeline: Timeline, pacer: Pacer) -> None:
    """10 ms before the learner began, 12 ms while it runs."""
    step_on(timeline, pacer, 50)
    pacer.exchange(Pace(num_sms=64, duty=1.0))
    pacer.turn()
    pacer.begins()
    step_on(timeline, pacer, 50, gap_s=0.012)
    assert matched_ratio(pacer.exchange(Pace(num_sms=64, duty=1.0))) == pytest.approx(1.2, abs=0.01)


def test_what_the_learner_does_between_micro_batches_is_no_calm(timeline: Timeline, pacer: Pacer) -> None:
    """Its Python may slow the engine as well: only a wait for a turn is calm, or two seconds without any."""
    step_on(timeline, pacer, 50)
    pacer.turn()
    train(timeline, pacer, 0.1)
    pacer.exchange(Pace(num_sms=64, duty=1.0))
    step_on(timeline, pacer, 60, gap_s=0.02)
    assert matched_ratio(pacer.exchange(Pace(num_sms=64, duty=1.0))) == pytest.approx(2.0, abs=0.05)
    step_on(timeline, pacer, 500, gap_s=0.02)  # ten seconds
    assert matched_ratio(pacer.exchange(Pace(num_sms=64, duty=1.0))) == pytest.approx(1.0, abs=0.1)


def test_a_pace_that_compares_leaves_a_dozen_steps_of_60_alone_while_little_is_known(
    timeline: Timeline, pacer: Pacer
) -> None:
    """After 60 steps without calm a turn waits for twelve calm gaps, the first of which began after the wait did."""
    pacer.exchange(Pace(num_sms=64, duty=1.0, compares=True))
    pacer.turn()
    pacer.begins()
    step_on(timeline, pacer, 62)
    assert pacer.rationed
    pacer.ran(0.6, num_sms=64, num_tokens=1)
    began_s = timeline.now
    for number in range(60):
        timeline.at(began_s + 0.01 * number, lambda: pacer.begin_step(4, 0))
    assert pacer.turn() == 64
    assert timeline.now - began_s == pytest.approx(0.14, abs=0.021)
    assert not pacer.rationed


def test_a_pace_that_does_not_compare_never_waits_for_calm(timeline: Timeline, pacer: Pacer) -> None:
    """As above, without it."""
    pacer.exchange(Pace(num_sms=64, duty=1.0))
    pacer.turn()
    pacer.begins()
    step_on(timeline, pacer, 302)
    pacer.ran(3.0, num_sms=64, num_tokens=1)
    began_s = timeline.now
    pacer.begin_step(4, 0)
    assert pacer.turn() == 64
    assert timeline.now == began_s


def test_it_leaves_a_dozen_of_300_once_enough_is_known(timeline: Timeline, pacer: Pacer) -> None:
    """After a hundred calm steps of one size."""
    step_on(timeline, pacer, 100)
    pacer.exchange(Pace(num_sms=64, duty=1.0, compares=True))
    pacer.turn()
    pacer.begins()
    step_on(timeline, pacer, 298)
    assert not pacer.rationed
    step_on(timeline, pacer, 4)
    assert pacer.rationed


def test_a_trace_has_every_step_and_micro_batch(timeline: Timeline) -> None:
    """From when it is asked for until it is asked for again, and nothing else. A thread that computes a tenth of the
    time has computed for 0.05 s from one micro-batch's end to the next."""
    pacer = Pacer(SIZES, None, clock=lambda: timeline.now, cpu_clock=lambda: timeline.now / 10, sleep=timeline.sleep)
    run_engine(timeline, pacer, [0.0])
    assert pacer.trace(on=True) == StepTrace([], [])
    timeline.go_to(1.0)
    pacer.begin_step(3, 7)
    pacer.end_step()
    train(timeline, pacer, 0.5, num_sms=104)
    train(timeline, pacer, 0.5)
    trace = pacer.trace(on=False)
    assert trace.steps == [TracedStep(1.0, 3, 7, False)]
    first, second = trace.microbatches
    assert first == TracedMicrobatch(1.0, 1.5, 104, 0.0)
    assert second.ended_s == 2.0
    assert second.cpu_s == pytest.approx(0.05)
    run_engine(timeline, pacer, [2.0])
    assert pacer.trace(on=False) == StepTrace([], [])
