"""A child process with everything below it: who is in the tree, and ending it so that nobody is left.

    end: list the tree ─► SIGTERM to its root, wait ─► SIGKILL to whoever is left ─► wait until all are gone

A tree is the root's descendants and the members of its session, so that orphans are found as well. Reads `/proc`.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_POLL_S = 0.05
_SETTLE_S = 2.0
_KILL_WAIT_S = 5.0
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Member:
    """One process. Its start time tells it from a later process with the same id."""

    pid: int
    parent_pid: int
    session: int
    started: int

    @property
    def alive(self) -> bool:
        """False once the process has ended, also while nobody has collected its status."""
        found = _read(self.pid)
        return found is not None and found.started == self.started


def tree_of(root: int) -> set[Member]:
    """The process ``root``, its descendants, and whoever belongs to the session that it leads."""
    running = list(_running())
    found = {member for member in running if root in (member.pid, member.session)}
    while True:
        pids = {member.pid for member in found} | {root}
        below = {member for member in running if member.parent_pid in pids} - found
        if not below:
            return found
        found |= below


def end_tree(root: "subprocess.Popen[bytes]", *, grace_s: float) -> list[int]:
    """End a session leader and its whole tree; ids of processes that had to be killed.

    The root gets SIGTERM and ``grace_s`` to end the others itself.

    Raises:
        TimeoutError: somebody survives SIGKILL.
    """
    members = tree_of(root.pid)
    root.terminate()
    with suppress(subprocess.TimeoutExpired):
        root.wait(grace_s)
    # Helpers of a process that has just ended, such as multiprocessing's resource tracker, see it a moment later.
    killed = _left_after(_SETTLE_S if root.returncode is not None else 0.0, members | tree_of(root.pid))
    for member in killed:
        with suppress(ProcessLookupError):
            os.kill(member.pid, signal.SIGKILL)
    root.wait()
    if left := _left_after(_KILL_WAIT_S, killed):
        raise TimeoutError(f"processes {_pids(left)} do not end")
    return _pids(killed)


def _left_after(wait_s: float, members: set[Member]) -> set[Member]:
    """Who of them is still there after waiting for all to go."""
    deadline = time.monotonic() + wait_s
    while (left := {member for member in members if member.alive}) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    return left


def _pids(members: set[Member]) -> list[int]:
    return sorted(member.pid for member in members)


def _running() -> Iterator[Member]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (member := _read(int(entry.name))) is not None:
            yield member


def _read(pid: int) -> Member | None:
    """The running process with this id; fields of `/proc/<pid>/stat` as in proc(5)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return None
    # The second field is the program's name in parentheses and may hold anything.
    state, parent_pid, _, session, *rest = text.rpartition(")")[2].split()
    if state in "ZX":
        return None
    return Member(pid, int(parent_pid), int(session), started=int(rest[15]))
