"""TRL's GRPOTrainer as a peer: what to measure, and running service.bench.peers.trl_grpo in a process of its own.

    TrlSettings ─► `python -m service.bench.peers.trl_grpo …` ─► result file ─► TrlResult

Imports neither TRL nor torch: they belong to the peer's process.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean
from typing import Literal

import msgspec

from service.bench.peers.failure import PeerFailed
from service.bench.peers.program import PeerProgram, running_program
from service.bench.peers.vllm_server import OFFLINE

WARM_UP_STEPS = 2
"""First steps of a run, which compile, allocate and fill caches, and are not measured."""
_MODULE = "service.bench.peers.trl_grpo"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrlSettings:
    """One comparison. Every field is an option of the peer's program: `prompts_per_step` is `--prompts-per-step`."""

    model: str
    """Folder with weights and tokenizer."""
    method: Literal["adapter", "full"] = "adapter"
    prompts_per_step: int = 8
    group_size: int = 8
    prompt_tokens: int = 128
    reply_tokens: int = 128
    steps: int = 6
    """Optimizer steps, WARM_UP_STEPS of them unmeasured."""
    rank: int = 16
    """LoRA rank."""
    alpha: float = 32.0
    microbatch: int = 8
    """Sequences per forward pass; gradients accumulate over a step."""
    learning_rate: float = 1e-4
    generation: Literal["vllm", "hf"] = "vllm"
    """vLLM in colocate mode, or transformers' own generation."""
    vllm_memory: float = 0.3
    """vLLM's share of the GPU; on a CPU its KV cache has 1 GiB."""
    vllm_arguments: str = "{}"
    """More arguments of vLLM's LLM as JSON, which TRL has no option for."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the trained weights in memory. TRL's own choice for full fine-tuning is float32, which is slower."""
    liger: bool = False
    """Liger's kernels for norms, rotary embeddings and the activation."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.sequences_per_step % self.microbatch:
            raise ValueError(
                f"prompts_per_step * group_size must be a multiple of microbatch, got {self.sequences_per_step} and "
                f"{self.microbatch}"
            )
        if self.steps <= WARM_UP_STEPS:
            raise ValueError(f"steps must be more than the {WARM_UP_STEPS} of the warm-up, got {self.steps}")

    @property
    def sequences_per_step(self) -> int:
        return self.prompts_per_step * self.group_size

    def arguments(self) -> list[str]:
        """The program's command-line options."""
        words: list[str] = []
        for name, value in asdict(self).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                words += [option] if value else []
            else:
                words += [option, str(value)]
        return words


@dataclass(frozen=True, slots=True)
class TrlStep:
    """One optimizer step, in seconds of wall clock. The phases add up to ``total_s``."""

    total_s: float
    sync_s: float
    """Writing the trained weights into vLLM."""
    generation_s: float
    score_s: float
    train_s: float
    """All the rest: forward, backward, optimizer, and what is between the phases."""
    num_sequences: int
    num_tokens: int
    """Sampled tokens."""


@dataclass(frozen=True, slots=True)
class TrlResult:
    """What the peer's program writes."""

    settings: dict[str, object]
    versions: dict[str, str] = field(default_factory=dict)
    device: str = ""
    start_s: float | None = None
    """From the program's start to the first step."""
    steps: tuple[TrlStep, ...] = ()
    """All of them, the warm-up first."""
    peak_memory_gib: float | None = None
    """Most memory that torch held on the GPU, vLLM's in the same process included."""
    error: str | None = None
    """Why the run ended early; what was measured before stands."""

    @property
    def measured(self) -> tuple[TrlStep, ...]:
        return self.steps[WARM_UP_STEPS:]

    def summary(self) -> dict[str, float]:
        """Means over the measured steps, so that phases add up, and tokens per second; empty without such steps."""
        if not self.measured:
            return {}
        names = [item.name for item in fields(TrlStep)]
        means = {name: fmean(getattr(step, name) for step in self.measured) for name in names}
        return {**means, "tokens_per_s": means["num_tokens"] / means["total_s"]}


async def run_trl(settings: TrlSettings, *, timeout_s: float = 900.0, log_path: Path | None = None) -> TrlResult:
    """Run the peer in a process of its own and wait for it. Enter it from the main thread.

    Raises:
        PeerFailed: no step was measured; the message has the peer's error, or the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
        out = Path(folder) / "trl.json"
        command = [sys.executable, "-P", "-m", _MODULE, *settings.arguments(), "--out", str(out)]
        async with running_program(command, environment=OFFLINE, log_path=log_path) as program:
            try:
                await program.finished("TRL's GRPOTrainer", timeout_s)
            except PeerFailed:
                if not _measured_something(out):
                    raise
            return read_result(out, program)


def read_result(path: Path, program: PeerProgram) -> TrlResult:
    """The result that the program wrote.

    Raises:
        PeerFailed: there is none, it is not a result, or it has no measured step.
    """
    try:
        result = msgspec.json.decode(path.read_bytes(), type=TrlResult)
    except (OSError, msgspec.DecodeError) as error:
        raise PeerFailed(f"TRL's GRPOTrainer wrote no result: {error}\n{program.tail()}") from error
    if not result.measured:
        raise PeerFailed(f"TRL's GRPOTrainer measured no step: {result.error}\n{program.tail()}")
    return result


def write_result(path: Path, result: TrlResult) -> None:
    """Write a result with its summary, whole or not at all: a reader may come at any time."""
    partial = path.with_name(f"{path.name}.partial")
    content = {**msgspec.to_builtins(result), "summary": result.summary()}
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def _measured_something(path: Path) -> bool:
    try:
        return bool(msgspec.json.decode(path.read_bytes(), type=TrlResult).measured)
    except (OSError, msgspec.DecodeError):
        return False
