"""Reward models in the engine process: what is scored when, and what is answered."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from agent.errors import ModelError
from rewards.models.backbone import Backbone, load_classifier
from rewards.models.encoding import RewardEncoder
from tests.tiny_reward import save_tiny_adapter, save_tiny_scorer
from trainer import messages
from trainer.flight import Interlude, fly
from trainer.graphs import Eager
from trainer.lanes import open_lanes
from trainer.microbatch import Shape, blank_microbatch
from trainer.pace import Pace
from trainer.pacer import Pacer
from trainer.reward_desk import RewardDesk

CPU = torch.device("cpu")
ROWS = [[1, 10, 11, 12], [1, 20], [1, 30, 31]]


class Clock:
    """A time that stands still until somebody sleeps, or the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.on_sleep: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, duration_s: float) -> None:
        self.now += duration_s
        self.on_sleep()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_scorer(tmp_path_factory.mktemp("scorer"))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pacer(clock: Clock) -> Pacer:
    return Pacer((), "a CPU", clock=clock, sleep=clock.sleep)


@pytest.fixture
def desk(source: Path, pacer: Pacer, clock: Clock) -> RewardDesk:
    desk = RewardDesk(open_lanes(CPU), pacer, CPU, clock=clock)
    desk.open(_opening(source))
    return desk


def _opening(source: Path) -> messages.OpenBackbone:
    return messages.OpenBackbone("base", str(source), shares=False, device="engine")


def _ask(
    desk: RewardDesk,
    answers: dict[str, messages.Answer],
    name: str,
    *,
    batch_tokens: int = 64,
    within_s: float | None = None,
) -> None:
    command = messages.ScoreReplies("base", None, ROWS, batch_tokens, within_s)
    desk.put(command, lambda answer: answers.__setitem__(name, answer))


def test_it_is_an_interlude(desk: RewardDesk) -> None:
    """The learner takes it between its micro-batches."""

    def check(desk: RewardDesk) -> Interlude:
        return desk

    assert not check(desk).is_due()


def test_a_backbone_says_what_it_is(source: Path, pacer: Pacer) -> None:
    """Its head came with it; 512 positions; bytes are those of its safetensors weights, and of the device alone."""
    desk = RewardDesk(open_lanes(CPU), pacer, CPU)
    facts = desk.open(_opening(source))
    encoder = RewardEncoder.load(str(source))
    tensors = Backbone(load_classifier(str(source), encoder.tokenizer)).tensors()
    assert facts == messages.BackboneFacts(True, 512, sum(tensor.nbytes for tensor in tensors))
    assert desk.size_bytes == facts.size_bytes


def test_batches_of_a_job_come_back_in_the_order_of_its_rows(desk: RewardDesk, source: Path) -> None:
    """One row at a time or all at once: the same scores at the same places."""
    answers: dict[str, messages.Answer] = {}
    _ask(desk, answers, "small", batch_tokens=1)
    _ask(desk, answers, "large")
    desk.finish_one()
    desk.finish_one()
    encoder = RewardEncoder.load(str(source))
    expected = Backbone(load_classifier(str(source), encoder.tokenizer)).scores(ROWS, None)
    for answer in answers.values():
        assert isinstance(answer, messages.Done)
        assert answer.scores == pytest.approx(expected, abs=1e-5)
    assert len(answers) == 2


def test_between_two_micro_batches_live_jobs_are_finished_and_others_go_on(desk: RewardDesk) -> None:
    """Of three one-row batches each, an interlude runs all of the live job's and one of the other's."""
    answers: dict[str, messages.Answer] = {}
    _ask(desk, answers, "other", batch_tokens=1)
    _ask(desk, answers, "live", batch_tokens=1, within_s=5.0)
    assert desk.is_due()
    desk.run()
    assert list(answers) == ["live"]
    assert not desk.is_due()
    desk.run()
    assert list(answers) == ["live"]
    desk.run()
    assert list(answers) == ["live", "other"]


def test_a_live_request_breaks_into_the_wait_for_a_turn(desk: RewardDesk, pacer: Pacer, clock: Clock) -> None:
    """The pace grants nothing: the micro-batch and the other job wait, the live one is scored at its arrival."""
    answers: dict[str, messages.Answer] = {}
    events: list[str] = []
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=0, duty=0.0))
    arrivals = iter([lambda: _ask(desk, answers, "live", within_s=5.0), lambda: None])

    def on_sleep() -> None:
        events.append(f"slept with {sorted(answers)}")
        next(arrivals, lambda: pacer.exchange(Pace(num_sms=0, duty=1.0)))()

    clock.on_sleep = on_sleep
    blank = blank_microbatch(Shape(1, 32, 32), CPU)
    fly(Eager(lambda _: events.append("ran")), [blank], open_lanes(CPU), pacer, trains=True, interlude=desk)
    assert events == ["slept with []", "slept with ['live']", "slept with ['live']", "ran"]


def test_other_jobs_wait_for_their_turn(desk: RewardDesk, pacer: Pacer, clock: Clock) -> None:
    """Tuning's replies are scored at tuning's pace."""
    answers: dict[str, messages.Answer] = {}
    pacer.begin_step()
    pacer.exchange(Pace(num_sms=0, duty=0.0))
    waited: list[bool] = []

    def on_sleep() -> None:
        waited.append("other" in answers)
        pacer.exchange(Pace(num_sms=0, duty=1.0))

    clock.on_sleep = on_sleep
    _ask(desk, answers, "other")
    desk.finish_one()
    assert waited == [False]
    assert isinstance(answers["other"], messages.Done)


def test_an_answer_that_would_come_too_late_is_not_computed(desk: RewardDesk, clock: Clock) -> None:
    """Whoever asked has gone on; the job is answered all the same, so that nothing piles up."""
    answers: dict[str, messages.Answer] = {}
    _ask(desk, answers, "live", within_s=1.0)
    clock.now += 1.5
    desk.run()
    assert answers["live"] == messages.Failed("the reply would come too late", late=True)
    assert not desk.is_due()


def test_a_job_that_fails_ends_nothing_but_itself(desk: RewardDesk) -> None:
    """An unknown adapter, an unknown backbone and a token outside of the vocabulary; the next job is scored."""
    answers: dict[str, messages.Answer] = {}
    for name, command in {
        "adapter": messages.ScoreReplies("base", "de_v9", ROWS, 64, None),
        "backbone": messages.ScoreReplies("other", None, ROWS, 64, None),
        "token": messages.ScoreReplies("base", None, [[10**6]], 64, None),
    }.items():
        desk.put(command, lambda answer, name=name: answers.__setitem__(name, answer))  # type: ignore[misc]
    _ask(desk, answers, "good")
    for _ in range(4):
        desk.run()
    assert answers["adapter"] == messages.Failed("there is no reward adapter de_v9, only []")
    assert answers["backbone"] == messages.Failed("there is no reward backbone other, only ['base']")
    failed = answers["token"]
    assert isinstance(failed, messages.Failed)
    assert failed.reason.startswith("IndexError: ")
    assert isinstance(answers["good"], messages.Done)


def test_training_gives_way_for_the_time_of_live_scoring(desk: RewardDesk, pacer: Pacer) -> None:
    """The pacer hears of it as of a micro-batch that trained nothing."""
    answers: dict[str, messages.Answer] = {}
    _ask(desk, answers, "live", within_s=5.0)
    desk.run()
    pulse = pacer.exchange(Pace(num_sms=0, duty=1.0))
    assert (pulse.num_microbatches, pulse.num_train_tokens) == (1, 0)


def test_versions_are_loaded_and_dropped(desk: RewardDesk, source: Path, tmp_path: Path) -> None:
    """A dropped version no longer scores, and its memory counts while it is there."""
    before = desk.size_bytes
    first, second = (save_tiny_adapter(tmp_path, "de", source, version=n, seed=n) for n in (1, 2))
    desk.load(messages.LoadReward("base", "de_v1", str(first)))
    one = desk.size_bytes
    desk.load(messages.LoadReward("base", "de_v2", str(second)))
    assert desk.size_bytes - one == one - before > 0
    desk.drop(messages.DropReward("base", "de_v1"))
    assert desk.size_bytes == one
    with pytest.raises(ModelError, match="no reward backbone other"):
        desk.drop(messages.DropReward("other", "de_v1"))


def test_weights_cannot_be_shared_where_no_model_is_served(desk: RewardDesk, source: Path) -> None:
    """It is said, and nothing is loaded twice instead."""
    with pytest.raises(ModelError, match="no served model"):
        desk.open(messages.OpenBackbone("served", str(source), shares=True, device="engine"))
