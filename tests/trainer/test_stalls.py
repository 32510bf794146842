"""Calls that take long are reported with where they are."""

import logging
import threading

import pytest

from trainer.stalls import StallWatch


class Clock:
    """Stands until it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_long_call_is_reported_once_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    """From another thread: the frames are those of the thread that is held. Its end is told too."""
    clock, held, let_go = Clock(), threading.Event(), threading.Event()
    watch = StallWatch(long_s=1.0, clock=clock)

    def hold_on() -> None:
        with watch.call("execute_model"):
            held.set()
            let_go.wait(10)

    thread = threading.Thread(target=hold_on)
    with caplog.at_level(logging.WARNING):
        thread.start()
        assert held.wait(10)
        clock.now_s = 0.9
        watch.look()
        assert not caplog.messages
        clock.now_s = 1.5
        watch.look()
        watch.look()
        let_go.set()
        thread.join(10)
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("engine_call_long call=execute_model so_far_s=1.50, in\n")
    assert "in hold_on" in caplog.messages[0]
    assert caplog.messages[1] == "engine_call_ended call=execute_model duration_s=1.50"


def test_short_calls_are_not_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    """Not even when one after the other they take long."""
    clock = Clock()
    watch = StallWatch(long_s=1.0, clock=clock)
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            with watch.call("get_output"):
                clock.now_s += 0.9
                watch.look()
        clock.now_s += 5
        watch.look()
    assert not caplog.messages


def test_a_call_that_raises_is_over() -> None:
    """And is not reported later."""
    clock = Clock()
    watch = StallWatch(clock=clock)
    with pytest.raises(ValueError, match="broken"), watch.call("sample_tokens"):
        raise ValueError("broken")
    clock.now_s = 100.0
    watch.look()
