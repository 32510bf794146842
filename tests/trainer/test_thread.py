"""The learner's thread: commands in, answers out, in order, whatever they raise."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import torch

from agent.errors import TrainerFailed
from rewards.models.backbone import Classifier
from rewards.models.encoding import RewardEncoder
from tests.tiny_reward import save_tiny_scorer
from tests.trainer.samples import SETTINGS, completion, tiny_llama
from trainer import messages
from trainer.batch import build_batch
from trainer.group import TrainingSequence
from trainer.lanes import Lane, Lanes, open_lanes
from trainer.learner import Learner
from trainer.pacer import Pacer
from trainer.policy_folder import policy_folder
from trainer.ports import PolicyMetadata
from trainer.reward_desk import RewardDesk
from trainer.thread import LearnerThread

STEP = messages.Step.of(
    build_batch([TrainingSequence(completion((20, 21)), 1.0, "de"), TrainingSequence(completion((22,)), -1.0, "de")]), 1
)
SCORE = messages.Logprobs([[1, 2]], [[20, 21]])


@pytest.fixture
def thread() -> LearnerThread:
    return LearnerThread(Learner(tiny_llama(), base_model="tiny"))


def _answer(thread: LearnerThread, ticket: int) -> messages.Answer:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        answer = thread.poll(ticket)
        if answer is not None:
            return answer
        time.sleep(0.005)
    raise TimeoutError(f"no answer to {ticket}")


def _ask(thread: LearnerThread, command: messages.Command) -> messages.Answer:
    return _answer(thread, thread.submit(command))


def test_commands_run_in_order(thread: LearnerThread) -> None:
    """All are handed over at once; the step finds the run begun before it, the score finds the step."""
    tickets = [thread.submit(command) for command in (SCORE, messages.Begin(SETTINGS, None), STEP, SCORE)]
    before, begun, step, after = [_answer(thread, ticket) for ticket in tickets]
    assert begun == messages.Done()
    assert isinstance(step, messages.Done)
    assert step.step is not None
    assert isinstance(before, messages.Done)
    assert isinstance(after, messages.Done)
    assert before.logprobs != after.logprobs


def test_an_answer_is_given_once(thread: LearnerThread) -> None:
    """Nothing piles up for callers who have gone on; a ticket that nobody has is just not done."""
    ticket = thread.submit(messages.Forget(3))
    assert _answer(thread, ticket) == messages.Done()
    assert thread.poll(ticket) is None
    assert thread.poll(99) is None


def test_a_command_that_raises_is_answered_and_the_thread_lives_on(thread: LearnerThread) -> None:
    """A step before any run, a token outside of the vocabulary, a folder that is not there; then all goes well."""
    assert _ask(thread, STEP) == messages.Failed("TrainerFailed: a run must begin before it can step")
    unknown = _ask(thread, messages.Logprobs([[1]], [[9999]]))
    assert isinstance(unknown, messages.Failed)
    assert unknown.reason.startswith("IndexError: ")
    missing = _ask(thread, messages.Load("nowhere/v5", 5))
    assert isinstance(missing, messages.Failed)
    assert missing.publication
    assert _ask(thread, messages.Begin(SETTINGS, None)) == messages.Done()


def test_versions_are_kept_until_they_are_forgotten(thread: LearnerThread, tmp_path: Path) -> None:
    """Step keeps, save writes what was kept, load keeps what was written, forget frees; the digests agree."""
    _ask(thread, messages.Begin(SETTINGS, None))
    _ask(thread, STEP)
    assert set(thread.kept) == set(thread.configs) == {1}
    folder = str(policy_folder(tmp_path, 1))
    saved = _ask(thread, messages.Save(folder, PolicyMetadata(1, 0, "run_a", "tiny")))
    assert _ask(thread, messages.Forget(1)) == messages.Done()
    assert thread.kept == {}
    assert thread.configs == {}
    assert _ask(thread, messages.Load(folder, 1)) == saved
    assert set(thread.kept) == {1}
    assert _ask(thread, messages.Begin(SETTINGS, folder)) == messages.Done()


def test_a_version_that_is_not_kept_cannot_be_written(thread: LearnerThread, tmp_path: Path) -> None:
    """A publication fails then, not the learner."""
    answer = _ask(thread, messages.Save(str(tmp_path / "v2"), PolicyMetadata(2, 0, "run_a", "tiny")))
    assert answer == messages.Failed("version 2 is not kept, only []", publication=True)


def test_a_step_that_fails_keeps_nothing(thread: LearnerThread) -> None:
    """There is no version then that could be installed."""
    _ask(thread, messages.Begin(SETTINGS, None))
    sick = build_batch([TrainingSequence(completion(), float("nan"), "de")])
    answer = _ask(thread, messages.Step.of(sick, 1))
    assert isinstance(answer, messages.Failed)
    assert "must be finite" in answer.reason
    assert thread.kept == {}


def test_a_run_goes_on_from_its_checkpoint(thread: LearnerThread, tmp_path: Path) -> None:
    """In another thread, as in another process: its version is kept there, and the next step gives the same weights."""
    _ask(thread, messages.Begin(SETTINGS, None))
    _ask(thread, STEP)
    assert _ask(thread, messages.Checkpoint(str(tmp_path))) == messages.Done()
    assert [path.name for path in tmp_path.iterdir()] == ["optimizer.safetensors"]
    other = LearnerThread(Learner(tiny_llama(), base_model="tiny"))
    assert _ask(other, messages.Resume(SETTINGS, str(tmp_path), 1)) == messages.Done()
    assert set(other.kept) == set(other.configs) == {1}
    torch.testing.assert_close(other.kept[1], thread.kept[1], rtol=0, atol=0)
    for each in (thread, other):
        _ask(each, msgspec.structs.replace(STEP, version=2))
    torch.testing.assert_close(other.kept[2], thread.kept[2], rtol=0, atol=0)


def test_a_checkpoint_needs_a_run_and_a_resumed_run_a_checkpoint(thread: LearnerThread, tmp_path: Path) -> None:
    """Either failure is an answer."""
    no_run = _ask(thread, messages.Checkpoint(str(tmp_path)))
    assert no_run == messages.Failed("TrainerFailed: a run must begin before it can step")
    nothing = _ask(thread, messages.Resume(SETTINGS, str(tmp_path), 1))
    assert isinstance(nothing, messages.Failed)
    assert "optimizer.safetensors" in nothing.reason


def test_replies_are_scored_between_the_micro_batches_of_a_step(tmp_path: Path) -> None:
    """Twenty steps are queued before a live request's replies: these are answered while the last is yet to be taken."""
    lanes = open_lanes(torch.device("cpu"))
    desk = RewardDesk(lanes, Pacer(lanes.sizes, lanes.reason), torch.device("cpu"))
    thread = LearnerThread(Learner(tiny_llama(), base_model="tiny", interlude=desk), desk=desk)
    source = str(save_tiny_scorer(tmp_path))
    opened = _ask(thread, messages.OpenBackbone("base", source, shares=False, device="engine"))
    assert isinstance(opened, messages.Done)
    assert opened.backbone is not None
    assert _ask(thread, messages.Begin(SETTINGS, None)) == messages.Done()
    last = [thread.submit(STEP) for _ in range(20)][-1]
    scored = _answer(thread, thread.submit(messages.ScoreReplies("base", None, [[1, 5]], 64, 30.0)))
    assert thread.poll(last) is None
    assert isinstance(scored, messages.Done)
    assert scored.scores is not None
    assert len(scored.scores) == 1
    assert thread.memory()["reward_models"] == opened.backbone.size_bytes
    assert isinstance(_answer(thread, last), messages.Done)  # a process that ends within a step aborts


def test_every_answer_is_told_of_once_it_is_there(tmp_path: Path) -> None:
    """By its ticket, those of failed commands and of scored replies too, so that whoever hears it finds the answer."""
    told: list[tuple[int, messages.Answer | None]] = []
    desk = RewardDesk(open_lanes(torch.device("cpu")), Pacer((), "a CPU"), torch.device("cpu"))
    learner = Learner(tiny_llama(), base_model="tiny")
    tells = LearnerThread(learner, desk=desk, on_answer=lambda ticket: told.append((ticket, tells.poll(ticket))))
    opening = messages.OpenBackbone("base", str(save_tiny_scorer(tmp_path)), shares=False, device="engine")
    scoring = messages.ScoreReplies("base", None, [[1, 5]], 64, None)
    tickets = [tells.submit(command) for command in (messages.Forget(3), STEP, opening, scoring)]
    deadline = time.monotonic() + 30
    while len(told) < len(tickets) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert [ticket for ticket, _ in told] == tickets
    assert [type(answer) for _, answer in told] == [messages.Done, messages.Failed, messages.Done, messages.Done]


def test_a_thread_without_reward_models_says_so(thread: LearnerThread) -> None:
    """Whoever asks hears it at once."""
    with pytest.raises(TrainerFailed, match="holds no reward models"):
        thread.submit(messages.ScoreReplies("base", None, [[1, 5]], 64, None))
    missing = _ask(thread, messages.LoadReward("base", "de_v1", "nowhere"))
    assert missing == messages.Failed("TrainerFailed: this process holds no reward models")


class _WatchedLane(Lane):
    """A lane that knows whether its stream is current."""

    is_current = False

    @contextmanager
    def active(self) -> Iterator[None]:
        before, _WatchedLane.is_current = _WatchedLane.is_current, True
        yield
        _WatchedLane.is_current = before


def test_whatever_a_command_puts_on_the_device_is_on_the_stream_that_is_waited_for(tmp_path: Path) -> None:
    """Opening a reward model copies weights and fills its head, as no micro-batch does: on the whole device's lane, or
    it might be scored by before it is there."""
    seen: list[bool] = []

    def served(encoder: RewardEncoder) -> Classifier:
        seen.append(_WatchedLane.is_current)
        raise TrainerFailed("enough was seen")

    lanes = Lanes((_WatchedLane(0, None),), "not a CUDA device")
    desk = RewardDesk(lanes, Pacer((), "a CPU"), torch.device("cpu"), served=served)
    thread = LearnerThread(Learner(tiny_llama(), base_model="tiny", lanes=lanes), desk=desk)
    source = save_tiny_scorer(tmp_path / "scorer")
    opened = _ask(thread, messages.OpenBackbone("base", str(source), shares=True, device="engine"))
    assert isinstance(opened, messages.Failed)
    assert seen == [True]
