"""Lets a test that measures the machine run alone, whatever the other processes of the same run are doing.

    any test:    turnstile shared ─► room shared ─► turnstile released ─► test ─► room released
    test alone:  turnstile exclusive ─────────────► room exclusive ────► test ─► both released

Who waits for the room alone holds the turnstile meanwhile, so that nobody else enters and its turn comes. The locks lie
on two files that every checkout has: nothing is left behind, and the kernel releases what a killed process held.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TURNSTILE = Path(__file__)
ROOM = Path(__file__).with_name("conftest.py")


@contextmanager
def entered(*, alone: bool, turnstile: Path = TURNSTILE, room: Path = ROOM) -> Iterator[None]:
    """Be in the room for the length of the block; ``alone`` waits until it is empty and keeps it so."""
    with _locked(room) as room_fd:
        with _locked(turnstile) as turnstile_fd:
            kind = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
            fcntl.flock(turnstile_fd, kind)
            fcntl.flock(room_fd, kind)
        yield


@contextmanager
def _locked(path: Path) -> Iterator[int]:
    """An open file whose lock ends with the block, even where a forked child still has it open."""
    with path.open("rb") as file:
        try:
            yield file.fileno()
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)
