"""A program run beside this one: its lines go to a progress callback, its failure becomes a ModelError."""

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from agent.errors import ModelError
from service.models.cache import Progress

_ERROR_LINES = 5


def run(command: Sequence[str], what: str, *, progress: Progress, env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end. Its standard input is an open pipe that closes when this process dies, however it dies.

    Raises:
        ModelError: it exited non-zero; the message ends with the last lines of its standard error.
    """
    with tempfile.TemporaryFile() as errors:
        environment = {**os.environ, **(env or {})}
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=environment) as process:
            try:
                for line in process.stdout or ():
                    progress(line.rstrip())
                process.wait()
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            raise ModelError(f"{what} failed with exit code {process.returncode}:\n{_tail(errors.read())}")


def _tail(output: bytes) -> str:
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-_ERROR_LINES:])
