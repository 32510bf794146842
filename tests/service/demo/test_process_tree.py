"""Process trees are real ones here: shells that start shells."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from service.demo.process_tree import Member, end_tree, tree_of


def start(script: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True)


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited 5 s"
        time.sleep(0.01)


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if any(member.pid == pid for member in tree_of(pid))}


def test_a_tree_is_the_root_with_everything_below_it() -> None:
    """The root, its child in a session of its own, and nobody else."""
    root = start("setsid sleep 60 & wait")
    try:
        wait_for(lambda: len(tree_of(root.pid)) == 2)
        child = next(member for member in tree_of(root.pid) if member.pid != root.pid)
        wait_for(lambda: any(m.pid == child.pid and m.session == child.pid for m in tree_of(root.pid)))
        assert child.parent_pid == root.pid
    finally:
        end_tree(root, grace_s=0.0)


def test_orphans_of_the_session_belong_to_the_tree() -> None:
    """A grandchild whose parent has ended is found by its session."""
    root = start("(sleep 60 &) ; sleep 61")
    try:
        wait_for(lambda: sum(member.parent_pid != root.pid for member in tree_of(root.pid)) == 2)
        assert {member.session for member in tree_of(root.pid)} == {root.pid}
    finally:
        end_tree(root, grace_s=0.0)
    assert tree_of(root.pid) == set()


def test_a_tree_that_ends_by_itself_is_not_killed(tmp_path: Path) -> None:
    """SIGTERM goes to the root, which has the time that it was given; nobody is reported as killed."""
    ready = tmp_path / "ready"
    root = start(f"trap 'kill $!; wait; exit 0' TERM; sh -c 'touch {ready}; exec sleep 60' & wait")
    wait_for(ready.exists)
    members = {member.pid for member in tree_of(root.pid)}
    assert end_tree(root, grace_s=5.0) == []
    assert root.returncode == 0
    assert alive(members) == set()


def test_whoever_outlives_the_grace_is_killed_and_reported(tmp_path: Path) -> None:
    """A root that ignores SIGTERM and its child in another session are gone afterwards, and named."""
    ready = tmp_path / "ready"
    root = start(f"trap '' TERM; setsid sleep 60 & touch {ready}; sleep 61")
    wait_for(ready.exists)
    wait_for(lambda: len(tree_of(root.pid)) == 3)
    members = {member.pid for member in tree_of(root.pid)}
    assert set(end_tree(root, grace_s=0.2)) == members
    assert alive(members) == set()


def test_another_process_with_the_same_id_is_not_taken_for_a_member() -> None:
    """The start time tells them apart."""
    root = start("sleep 60")
    try:
        member = next(iter(tree_of(root.pid)))
        assert member.alive
        assert not Member(member.pid, member.parent_pid, member.session, member.started - 1).alive
    finally:
        end_tree(root, grace_s=1.0)
    assert not member.alive
