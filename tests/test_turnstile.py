"""Locks between the processes of a test run. Threads stand for processes: each opens the files for itself."""

import fcntl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.turnstile import entered


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    named = {name: tmp_path / name for name in ("turnstile", "room")}
    for path in named.values():
        path.touch()
    return named


def is_free(path: Path) -> bool:
    """Whether nobody has it alone."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_tests_run_beside_one_another(files: dict[str, Path]) -> None:
    """Two that are not alone are in the room at one time."""
    with entered(alone=False, **files), entered(alone=False, **files):
        assert is_free(files["turnstile"])


def test_who_runs_alone_waits_for_the_others_and_goes_before_those_that_come_later(files: dict[str, Path]) -> None:
    """One is in the room, one waits to be alone, one comes later: they take their turns in this order."""
    order: list[str] = []

    def enter(name: str, *, alone: bool) -> None:
        with entered(alone=alone, **files):
            order.append(name)
            assert is_free(files["room"]) != alone

    with ThreadPoolExecutor() as threads:
        with entered(alone=False, **files):
            alone = threads.submit(enter, "alone", alone=True)
            while is_free(files["turnstile"]):
                time.sleep(0.001)
            later = threads.submit(enter, "later", alone=False)
            order.append("first")
        alone.result(10)
        later.result(10)
    assert order == ["first", "alone", "later"]


def test_a_test_that_fails_leaves_the_room(files: dict[str, Path]) -> None:
    """Whoever comes next need not wait."""
    with pytest.raises(ZeroDivisionError), entered(alone=True, **files):
        raise ZeroDivisionError
    assert is_free(files["room"])
    assert is_free(files["turnstile"])
