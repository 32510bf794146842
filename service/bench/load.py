"""Load on a server: what to send, how often, and what came back. The sending itself has a process of its own, so that
its work never holds the lock of the process that is measured.

    LoadPlan ─► file ─► service.bench.generator (child) ─► file ─► LoadResult

Times are of the machine's monotonic clock, which all processes share.
"""

import sys
import tempfile
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from service.bench.peers.program import running_program

_START_S = 30.0


class Poisson(Struct, tag=True, frozen=True):
    """Requests arrive at random, whether or not earlier ones are answered."""

    rate: float
    """Mean requests per second."""

    @property
    def label(self) -> str:
        return f"{self.rate:g} req/s"


class Closed(Struct, tag=True, frozen=True):
    """Clients that send the next request when the last one is answered."""

    num_clients: int

    @property
    def label(self) -> str:
        return f"{self.num_clients} clients"


Arrivals = Poisson | Closed


class Target(Struct, frozen=True):
    """A server and its protocol."""

    kind: Literal["content", "completions"]
    """`POST /v1/content` of a node, or `POST /v1/completions` of a vLLM server."""
    url: str
    key: str = ""
    model: str = ""
    """The model's name at the server; for `completions` only."""
    stream: bool = False
    """Measure first token and inter-token time at the client; for `completions` only."""


class PromptRecipe(Struct, frozen=True):
    """Instructions of random words. Equal seeds and numbers give equal texts, so that two servers get the same."""

    words: tuple[str, ...]
    num_words: int
    seed: int
    before: str = ""
    """What a node puts before the instructions; a server without templates gets it in its prompt."""
    after: str = ""


class LoadPlan(Struct, frozen=True):
    """One load on one server."""

    target: Target
    arrivals: Arrivals
    prompt: PromptRecipe
    max_tokens: int
    temperature: float
    warmup_s: float
    """Requests that are due before it ends are sent and not recorded."""
    duration_s: float
    """Length of the window that is measured."""
    seed: int
    timeout_s: float = 300.0
    stop_file: str | None = None
    """The window ends early once this file exists."""
    language: str = "en"
    """That a node is asked for."""


class Exchange(Struct, frozen=True):
    """One request. What did not come is None."""

    scheduled_s: float
    sent_s: float
    latency_s: float
    status: int | None = None
    error: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    first_token_ms: float | None = None
    inter_token_ms: float | None = None
    """Mean time between tokens."""
    policy_version: int | None = None

    @property
    def done_s(self) -> float:
        return self.sent_s + self.latency_s


class LoadResult(Struct, frozen=True):
    """Requests that were due in the window, in the order of their being due."""

    began_s: float
    """The window's begin."""
    duration_s: float
    exchanges: list[Exchange]
    done_in_window: int
    """Replies that came in the window, also of requests from before it."""
    tokens_in_window: int
    """Tokens of those replies."""

    @property
    def ended_s(self) -> float:
        return self.began_s + self.duration_s


async def run_load(plan: LoadPlan) -> LoadResult:
    """Carry a plan out in a process of its own. Call it on the main thread's event loop.

    Raises:
        PeerFailed: the generator ended badly; single requests that fail are in the result.
    """
    with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
        plan_path, result_path = Path(folder) / "plan", Path(folder) / "result"
        plan_path.touch(mode=0o600)  # it holds the tenant's key
        plan_path.write_bytes(msgspec.msgpack.encode(plan))
        command = [sys.executable, "-P", "-m", "service.bench.generator", str(plan_path), str(result_path)]
        async with running_program(command) as generator:
            limit_s = _START_S + plan.warmup_s + plan.duration_s + plan.timeout_s
            await generator.finished("the load generator", limit_s)
        return msgspec.msgpack.decode(result_path.read_bytes(), type=LoadResult)
