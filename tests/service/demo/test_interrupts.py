"""Signals that this process sends to itself."""

import signal
from collections.abc import Iterator

import pytest

from service.demo.interrupts import interrupts_held, sigterm_as_ctrl_c


@pytest.fixture(autouse=True)
def ctrl_c_is_heard() -> Iterator[None]:
    """Python ignores SIGINT where it was started so, as a shell's background jobs are."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted(number: signal.Signals, carried_out: list[str]) -> None:
    """A held block in which a signal comes."""
    with interrupts_held():
        signal.raise_signal(number)
        carried_out.append("after the signal")


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    """What is in the block is carried out; KeyboardInterrupt comes after it, and the handlers are back."""
    before = signal.getsignal(signal.SIGINT)
    carried_out: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(signal.SIGINT, carried_out)
    assert carried_out == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_block_without_a_signal_changes_nothing() -> None:
    """No exception, the same handlers."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interrupts_held():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_sigterm_is_ctrl_c() -> None:
    """A supervisor that stops the demo gets the same clean-up as a person."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_waits_as_well() -> None:
    """Held inside, it ends what is outside as Ctrl-C does."""
    carried_out: list[str] = []
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        interrupted(signal.SIGTERM, carried_out)
    assert carried_out == ["after the signal"]


def test_sigterm_ends_what_ignores_ctrl_c() -> None:
    """A script's background job has SIGINT ignored, and must be stopped all the same."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        signal.raise_signal(signal.SIGTERM)
    carried_out: list[str] = []
    with pytest.raises(KeyboardInterrupt), sigterm_as_ctrl_c():
        interrupted(signal.SIGTERM, carried_out)
    assert carried_out == ["after the signal"]
