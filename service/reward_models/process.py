"""The process that trains a reward model: on the CPU, at the lowest priority, with bounded threads.

The GPU belongs to the engine process, so this one is shown none. It ends with the node, however the node ends
(service.tether), and starts from the main thread for that.
"""

import asyncio
import os
import sys
from pathlib import Path

from agent.errors import TrainerFailed
from rewards.training.progress import read_progress
from service.reward_models.ports import OnProgress
from service.tether import tethered

PROGRAM = "rewards.training.program"
_ERRORS_NAME = "errors.log"


class ChildTraining:
    """`TrainingProcess` in a child of this process."""

    async def run(self, work: Path, *, num_threads: int, on_progress: OnProgress) -> None:
        """See TrainingProcess.run."""
        command = tethered([sys.executable, "-m", PROGRAM, str(work)])
        with (work / _ERRORS_NAME).open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=_environment(num_threads),
            )
        try:
            assert process.stdout is not None
            async for line in process.stdout:
                progress = read_progress(line)
                if progress is not None:
                    on_progress(progress)
            code = await process.wait()
        finally:
            await _end(process)
        if code != 0:
            reason = await asyncio.to_thread(_last_line, work / _ERRORS_NAME)
            raise TrainerFailed(f"the training's process ended with exit code {code}: {reason}")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Return when the process is gone; it keeps nothing, so it is not asked."""
    if process.returncode is None:
        process.kill()
        await asyncio.shield(process.wait())


def _environment(num_threads: int) -> dict[str, str]:
    hidden = {"CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, "OMP_NUM_THREADS": str(num_threads), "MKL_NUM_THREADS": str(num_threads), **hidden}


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:500] if lines else "it said nothing"
