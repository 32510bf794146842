"""Runs a peer's program: output into a file, its process tree ended by id, the end of the file in what is raised.

    start (own session, tied to this process) ─► … ─► SIGTERM to the root ─► tree verified gone

Enter from the main thread: a peer that is tied to this process is tied to the thread that starts it.
"""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from service.bench.peers.failure import PeerFailed
from service.demo.process_tree import end_tree
from service.tether import tethered

_POLL_S = 0.05
_GRACE_S = 20.0
_TAIL_CHARACTERS = 4000


@dataclass(frozen=True, slots=True)
class PeerProgram:
    """A running peer."""

    process: "subprocess.Popen[bytes]"
    log_path: Path

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self.process.poll()

    def tail(self) -> str:
        """The end of what it printed."""
        text = self.log_path.read_text(encoding="utf-8", errors="replace").strip()
        return "\n".join(f"  {line}" for line in text[-_TAIL_CHARACTERS:].splitlines())

    async def finished(self, name: str, timeout_s: float) -> None:
        """Wait until it has ended by itself.

        Raises:
            PeerFailed: it ended with another status than 0, or not in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self.status is None:  # noqa: ASYNC110 - a process's end sets no event here
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise PeerFailed(f"{name} must end within {timeout_s:g} s; its output ends with:\n{self.tail()}") from error
        if self.status != 0:
            raise PeerFailed(f"{name} ended with status {self.status}; its output ends with:\n{self.tail()}")


@asynccontextmanager
async def running_program(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, log_path: Path | None = None
) -> AsyncIterator[PeerProgram]:
    """Run a command for the length of the block; at its end nothing of it is left.

    Args:
        environment: set over this process's environment.
        log_path: gets what it prints; without one, a temporary file does.
    """
    with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
        path = log_path or Path(folder) / "peer.log"
        process = _start(command, {**os.environ, **(environment or {})}, path)
        try:
            yield PeerProgram(process, path)
        finally:
            # Shielded: a cancelled bench must not leave a peer on the GPU.
            await asyncio.shield(asyncio.to_thread(end_tree, process, grace_s=_GRACE_S))


def _start(command: Sequence[str], environment: Mapping[str, str], log_path: Path) -> "subprocess.Popen[bytes]":
    with log_path.open("wb") as log:
        return subprocess.Popen(
            tethered(list(command)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
