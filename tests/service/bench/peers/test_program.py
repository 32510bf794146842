"""Running a peer's program: its end, its output, and that nothing of it is left."""

import os
import sys
from pathlib import Path

import pytest

from service.bench.peers.failure import PeerFailed
from service.bench.peers.program import running_program


async def test_a_program_that_fails_says_what_it_printed() -> None:
    """The error has the status and the end of the output."""
    command = [sys.executable, "-c", "print('the reason'); raise SystemExit(3)"]
    async with running_program(command) as program:
        with pytest.raises(PeerFailed, match=r"the peer ended with status 3.*\n  the reason"):
            await program.finished("the peer", timeout_s=30)


async def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """Waiting for it fails, and at the end of the block its process is gone."""
    command = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    async with running_program(command, log_path=tmp_path / "log") as program:
        with pytest.raises(PeerFailed, match=r"the peer must end within 0.5 s"):
            await program.finished("the peer", timeout_s=0.5)
        pid = program.process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_program_gets_more_environment(tmp_path: Path) -> None:
    """What is given stands over what the bench's own process has."""
    command = [sys.executable, "-c", "import os; print(os.environ['HF_HUB_OFFLINE'], os.environ['PEER'])"]
    log_path = tmp_path / "log"
    async with running_program(command, environment={"PEER": "yes"}, log_path=log_path) as program:
        await program.finished("the peer", timeout_s=30)
    assert log_path.read_text() == "1 yes\n"
