"""What is held back of a reply, and that nothing of it is lost; on vLLM's own types."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from vllm.sampling_params import RequestOutputKind, SamplingParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreEvent, EngineCoreEventType, EngineCoreOutput, EngineCoreOutputs, FinishReason
from vllm.v1.outputs import LogprobsLists

from trainer.held_outputs import HeldOutputs, RequestOutput
from trainer.vllm_changes import hold_outputs_back


def output(name: str, *token_ids: int, done: bool = False, **more: Any) -> EngineCoreOutput:
    reason = FinishReason.LENGTH if done else None
    return EngineCoreOutput(request_id=name, new_token_ids=list(token_ids), finish_reason=reason, **more)


def passed(held: HeldOutputs, steps: Sequence[Sequence[EngineCoreOutput]], *, listens: bool = False) -> list[Any]:
    """Requests, tokens and whether it is the end, step by step, of requests that run until their end."""
    running = dict.fromkeys(item.request_id for step in steps for item in step)
    told = []
    for step in steps:
        for item in step:
            if item.finish_reason is not None:  # the scheduler has forgotten it by then
                running.pop(item.request_id)
        shown = held.pass_on(step, running, lambda _: listens)
        told.append([(item.request_id, item.new_token_ids, item.finished) for item in shown])
    return told


def test_the_first_token_and_the_end_are_passed_on() -> None:
    """The end with everything since the first token, whatever other requests do meanwhile."""
    held = HeldOutputs()
    steps = [
        [output("a", 1), output("b", 7)],
        [output("a", 2), output("b", 8, done=True)],
        [output("a", 3, 4)],
        [output("a", 5, done=True)],
    ]
    assert passed(held, steps) == [
        [("a", [1], False), ("b", [7], False)],
        [("b", [8], True)],
        [],
        [("a", [2, 3, 4, 5], True)],
    ]
    assert held.num_held == 0


def test_who_listens_gets_every_token() -> None:
    """Nothing is kept of such a request."""
    held = HeldOutputs()
    assert passed(held, [[output("a", 1)], [output("a", 2)]], listens=True) == [
        [("a", [1], False)],
        [("a", [2], False)],
    ]
    assert held.num_held == 0


def test_a_reply_of_one_token_is_over_at_once() -> None:
    """Its first output is its last; an output that ends with nothing new brings what was held."""
    held = HeldOutputs()
    assert passed(held, [[output("a", 1, done=True)]]) == [[("a", [1], True)]]
    assert passed(held, [[output("b", 1)], [output("b", 2)], [output("b", done=True)]])[-1] == [("b", [2], True)]
    assert held.num_held == 0


def test_events_come_with_the_end() -> None:
    """A preemption in between is told. Log-probabilities of the last token alone would say less than none."""
    held, running = HeldOutputs(), {"a": None}
    event = EngineCoreEvent.new_event(EngineCoreEventType.PREEMPTED, 3.0)
    row = LogprobsLists(np.array([[3]]), np.array([[-3.0]]), np.array([1]))
    held.pass_on([output("a", 1)], running, lambda _: False)
    held.pass_on([output("a", 2, events=[event])], running, lambda _: False)
    (end,) = held.pass_on([output("a", 3, new_logprobs=row, done=True)], {}, lambda _: False)
    assert (end.new_token_ids, end.events, end.new_logprobs) == ([2, 3], [event], None)


def test_aborted_requests_are_forgotten() -> None:
    """The scheduler says nothing of them: ten thousand that began and never ended leave a bounded number."""
    held = HeldOutputs()
    for number in range(10_000):
        held.pass_on([output(str(number), 1)], {str(number): None}, lambda _: False)
    assert held.num_held <= 300


def test_the_scheduler_holds_back_what_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Final output only, no text made of it and the sampled token's log-probability alone are what says so. A step that
    has nothing to tell tells nothing; the end is shown to who may add to it."""
    params = {
        "quiet": SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, detokenize=False, logprobs=0),
        "ranks": SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, detokenize=False, logprobs=2),
        "stops": SamplingParams(output_kind=RequestOutputKind.FINAL_ONLY, stop=["x"]),
        "heard": SamplingParams(output_kind=RequestOutputKind.DELTA),
    }
    steps = iter([[*params], [*params], ["quiet"], ["quiet end"]])

    def sampled(_: Any) -> dict[int, EngineCoreOutputs]:
        names = [name.partition(" ") for name in next(steps)]
        return {0: EngineCoreOutputs(outputs=[output(name, 1, done=bool(end)) for name, _, end in names])}

    monkeypatch.setattr(Scheduler, "update_from_output", sampled)
    monkeypatch.setattr(Scheduler, "make_stats", None)
    ends: list[RequestOutput] = []
    hold_outputs_back(ends.append)
    requests = {name: SimpleNamespace(sampling_params=asked) for name, asked in params.items()}
    scheduler = SimpleNamespace(requests=requests)
    told = [Scheduler.update_from_output(scheduler) for _ in range(4)]
    assert [item.request_id for item in told[0][0].outputs] == ["quiet", "ranks", "stops", "heard"]
    assert [item.request_id for item in told[1][0].outputs] == ["ranks", "stops", "heard"]
    assert told[2] == {}
    assert told[3][0].outputs == ends
    assert ends[0].new_token_ids == [1, 1, 1]
    assert Scheduler.make_stats(scheduler) is None
