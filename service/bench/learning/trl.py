"""TRL's GRPOTrainer on the same prompts and reward, in a process of its own; the program is learning.trl_program.

    TrlOrder ─► file ─► `python -m service.bench.learning.trl_program ORDER RESULT` ─► file ─► TrlLearned

Imports neither TRL nor torch: they belong to the peer's process.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from agent.brief import Brief
from service.bench.learning.exam import Graded
from service.bench.learning.figures import Point
from service.bench.peers.failure import PeerFailed
from service.bench.peers.program import running_program
from service.bench.peers.vllm_server import OFFLINE

_MODULE = "service.bench.learning.trl_program"
_START_AND_EXAMS_S = 240.0


class TrlOrder(Struct, frozen=True, kw_only=True):
    """One run of TRL's."""

    settings: dict[str, Any]
    """Of service.bench.peers.trl.TrlSettings."""
    num_steps: int
    train: list[Brief]
    held_out: list[Brief]
    exam_replies: int
    fluency: bool
    longest_s: float
    """Training is stopped after the step that ends later than this."""


class TrlLearned(Struct, frozen=True, kw_only=True):
    """What came of it."""

    points: list[Point] = []
    before: list[Graded] = []
    after: list[Graded] = []
    num_ungradable: int = 0
    """Replies in training without a reward, which TRL leaves out of its groups' means."""
    start_s: float | None = None
    """From the program's start to the first exam."""
    train_s: float | None = None
    device: str = ""
    versions: dict[str, str] = {}
    error: str | None = None


async def learn_with_trl(order: TrlOrder, *, log_path: Path | None = None) -> TrlLearned:
    """Run the peer and wait for it. Enter it from the main thread.

    Raises:
        PeerFailed: it took no step; the message has its error, or the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
        order_path, out = Path(folder) / "order", Path(folder) / "trl.json"
        order_path.write_bytes(msgspec.json.encode(order))
        command = [sys.executable, "-P", "-m", _MODULE, str(order_path), str(out)]
        async with running_program(command, environment=OFFLINE, log_path=log_path) as program:
            failure = None
            try:
                await program.finished("TRL's GRPOTrainer", order.longest_s + _START_AND_EXAMS_S)
            except PeerFailed as error:
                failure = error
            learned = _read(out)
            if learned is None or not learned.points:
                reason = learned.error if learned is not None else "no result"
                raise failure or PeerFailed(f"TRL's GRPOTrainer took no step: {reason}\n{program.tail()}")
            return learned


def _read(path: Path) -> TrlLearned | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrlLearned)
    except (OSError, msgspec.DecodeError):
        return None
