"""The demo's own node: `coloq serve` as a child process, with a configuration and a data folder of its own.

    configuration ─► serve (own session, tied to this process) ─► `Ready: URL` ─► … ─► SIGTERM ─► tree verified gone

The keys are made here and live in memory; the node gets their hashes.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from service.demo.failure import DemoFailed
from service.demo.interrupts import interrupts_held
from service.demo.process_tree import end_tree
from service.secrets import ADMIN_KEY_HASH, hash_key, new_key
from service.tether import tethered

OUTPUT_NAME = "node.out"
CONFIG_NAME = "node.toml"
_READY = "Ready: "
_POLL_S = 0.1
_GRACE_S = 30.0
_LOG_TAIL_LINES = 8
PROGRAM = "from service.cli import app; app()"

Announce = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NodeAccess:
    """Where the node listens, and the keys of its one tenant and of its operator."""

    url: str
    tenant_key: str = field(repr=False)
    admin_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NodeKeys:
    """Keys that were just made."""

    tenant: str = field(default_factory=lambda: new_key("demo").plain, repr=False)
    admin: str = field(default_factory=lambda: new_key("admin").plain, repr=False)


@contextmanager
def running_node(
    folder: Path,
    log_path: Path,
    configuration: Callable[[str], str],
    announce: Announce,
    *,
    program: str = PROGRAM,
) -> Iterator[NodeAccess]:
    """Run a node in ``folder`` for the length of the block. Enter it from the main thread.

    Args:
        log_path: gets the node's log.
        configuration: the node's TOML, given the hash of the tenant's key.
        announce: gets the lines that the node says before it is ready.
        program: Python code that takes the arguments `serve --config FILE`.

    Raises:
        DemoFailed: the node ended before it was ready, or something of it had to be killed.
    """
    keys = NodeKeys()
    (folder / CONFIG_NAME).write_text(configuration(hash_key(keys.tenant)), encoding="utf-8")
    killed: list[int] = []
    with ExitStack() as stack:
        with interrupts_held():
            process = _start(folder, log_path, hash_key(keys.admin), program)
            stack.callback(lambda: killed.extend(_end(process)))
        yield NodeAccess(_wait_until_ready(process, folder, log_path, announce), keys.tenant, keys.admin)
    if killed:
        raise DemoFailed(f"the node must stop by itself, but processes {killed} had to be killed; see {log_path}")


def _end(process: "subprocess.Popen[bytes]") -> list[int]:
    """See end_tree; a second Ctrl-C waits until it is done."""
    with interrupts_held():
        return end_tree(process, grace_s=_GRACE_S)


def _start(folder: Path, log_path: Path, admin_hash: str, program: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-c", program, "serve", "--config", str(folder / CONFIG_NAME)]
    with (folder / OUTPUT_NAME).open("wb") as output, log_path.open("wb") as log:
        return subprocess.Popen(
            tethered(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=log,
            env={**os.environ, ADMIN_KEY_HASH: admin_hash},
            # Ctrl-C reaches the whole foreground group; the demo ends its node itself.
            start_new_session=True,
        )


def _wait_until_ready(process: "subprocess.Popen[bytes]", folder: Path, log_path: Path, announce: Announce) -> str:
    shown = 0
    while True:
        ended = process.poll() is not None
        lines = _whole_lines(folder / OUTPUT_NAME)
        for line in lines[shown:]:
            if line.startswith(_READY):
                return line.removeprefix(_READY)
            announce(line)
        shown = len(lines)
        if ended:
            raise DemoFailed(f"the node ended with status {process.returncode} before it was ready:\n{_tail(log_path)}")
        time.sleep(_POLL_S)


def _whole_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return text[: text.rfind("\n") + 1].splitlines()


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join(f"  {line}" for line in lines)
