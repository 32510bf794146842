"""The worker's bookkeeping of the engine's steps, beside a vLLM Worker that is told what to do."""

from types import SimpleNamespace
from typing import Any

import pytest
from vllm.v1.outputs import AsyncModelRunnerOutput

from trainer.pace import Pace
from trainer.pacer import Pacer
from trainer.sampled import SampledTokens
from trainer.stalls import StallWatch
from trainer.worker import ColoqWorker


class Clock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _OnDevice(AsyncModelRunnerOutput):  # type: ignore[misc]  # vLLM's classes are not followed
    """A step's output that is still on the device."""

    def get_output(self) -> Any:
        return SimpleNamespace(req_ids=[], sampled_token_ids=[], logprobs=None)


def _step(num_tokens: int = 1) -> Any:
    return SimpleNamespace(total_num_scheduled_tokens=num_tokens, num_scheduled_tokens={"a": num_tokens})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def worker(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> ColoqWorker:
    """One whose vLLM samples on the device, and tries two steps while it warms up without reading what they sampled."""
    (base,) = ColoqWorker.__bases__

    def warm_up(self: ColoqWorker) -> str:
        for _ in range(2):
            self.execute_model(_step())
            self.sample_tokens(None)
        return "compiled"

    monkeypatch.setattr(base, "execute_model", lambda self, scheduled: None, raising=False)
    monkeypatch.setattr(base, "sample_tokens", lambda self, grammar: _OnDevice(), raising=False)
    monkeypatch.setattr(base, "compile_or_warm_up_model", warm_up, raising=False)
    made = ColoqWorker.__new__(ColoqWorker)
    made._sampled, made._stalls = SampledTokens(), StallWatch()
    made._pacer = Pacer((32, 132), None, clock=clock, sleep=lambda _: pytest.fail("the engine does nothing"))
    monkeypatch.setattr(made._sampled, "note", lambda output: None)
    return made


def test_steps_of_the_warm_up_leave_no_engine_at_work(worker: ColoqWorker, clock: Clock) -> None:
    """vLLM never reads what they sampled. The engine counted as busy for ever, and a learner that was to leave it some
    steps for itself waited for steps that never came."""
    worker._pacer.exchange(Pace(num_sms=32, duty=0.0))
    assert worker.compile_or_warm_up_model() == "compiled"
    clock.now_s = 2.0
    assert worker._pacer.turn() == 132


def test_a_step_is_in_hand_until_its_output_is_read(worker: ColoqWorker, clock: Clock) -> None:
    """The pace holds until then; a second later the learner has the whole GPU."""
    worker.execute_model(_step())
    output = worker.sample_tokens(None)
    clock.now_s = 5.0
    worker._pacer.exchange(Pace(num_sms=32, duty=1.0))
    assert worker._pacer.turn() == 32
    output.get_output()
    clock.now_s = 7.0
    assert worker._pacer.turn() == 132
