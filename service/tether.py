"""Runs a command that ends when the node does, however the node ends: ``python -I -S tether.py PARENT_PID COMMAND...``

The kernel sends the command SIGTERM when the thread that started it is gone, even after SIGKILL of the node. So start
it from the main thread. Linux only; elsewhere the command merely runs. Imports nothing but the standard library.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that the process gets when its parent dies. Survives execve(2)."""


def tethered(command: list[str]) -> list[str]:
    """The command line that runs ``command`` tied to the calling process."""
    return [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), *command]


def main() -> None:
    """Tie this process to its parent, then become the command."""
    parent_pid, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent_pid):
            sys.exit("the node ended before its store started")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
