"""The learner's step alone: no engine, one process, one device.

    LearnerOrder ─► file ─► `python -m service.bench.learner_step` (child) ─► file ─► LearnerReport
                             model ─► matrix rate ─► prepare ─► begin ─► warm-up steps ─► timed steps

The child holds the device and is gone afterwards, with all it allocated. Figures are of whole steps: every micro-batch,
the optimizer, and with method `full` the cast into the live weights, without which the next step could not begin.

    N  weights of the model, embeddings once        D  positions that go through forward and backward
    6 N D  floating-point operations of a step (Kaplan et al., arXiv 2001.08361, section 2.1)

An adapter's step needs about 4 N D of them, since frozen weights get no gradient; both are given as 6 N D, so that
their ratio is that of tokens per second.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from service.bench.control import BatchShape
from service.bench.failure import BenchFailed
from service.bench.peers.program import running_program
from trainer.ports import LearnerSettings, StepResult

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from trainer.batch import TrainingBatch
    from trainer.learner import Learner

_MODULE = "service.bench.learner_step"
_GPU_MATRIX, _CPU_MATRIX = 8192, 512
_MATRIX_REPEATS = 10
_MATRIX_SAMPLES = 5
_TEMPERATURE = 1.0
"""Of service.bench.training's batches."""


class LearnerOrder(Struct, frozen=True):
    """What to measure."""

    model: str
    """Folder with weights."""
    settings: LearnerSettings
    batch_size: int
    length: int
    """Prompt and reply of every sequence, in tokens."""
    reply_tokens: int
    num_steps: int
    num_warmup_steps: int = 2
    """Kernels are compiled and caches filled in them."""

    @property
    def shape(self) -> BatchShape:
        return BatchShape(batch_size=self.batch_size, length=self.length, reply_tokens=self.reply_tokens)


class LearnerReport(Struct, frozen=True):
    """What was measured."""

    device: str
    dtype: str
    method: str
    num_weights: int
    """N."""
    num_tokens: int
    """D, of one step."""
    matrix_tflops: float
    """Rate of one large matrix product in the model's type, on random data."""
    steps_s: tuple[float, ...]
    """Wall clock of each timed step."""
    prepare_s: float
    """What a node does before it takes requests: memory allocated, graphs captured."""
    first_step_s: float
    """Of the warm-up's first."""
    peak_memory_gib: float | None
    """Most memory that torch held; None on a CPU."""
    loss: float
    grad_norm: float

    @property
    def step_s(self) -> float:
        return median(self.steps_s)

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.step_s

    @property
    def tflops(self) -> float:
        """6 N D per second."""
        return 6 * self.num_weights * self.tokens_per_s / 1e12

    @property
    def matrix_share(self) -> float:
        """Of the matrix rate."""
        return self.tflops / self.matrix_tflops

    def figures(self) -> dict[str, object]:
        """Everything, the derived figures too."""
        derived = {name: getattr(self, name) for name in ("step_s", "tokens_per_s", "tflops", "matrix_share")}
        return {**msgspec.to_builtins(self), **derived}


async def run_learner(order: LearnerOrder, *, timeout_s: float = 600.0) -> LearnerReport:
    """Measure in a process of its own. Call it on the main thread's event loop.

    Raises:
        BenchFailed: the process failed or did not end in time; the message has the end of what it printed.
    """
    with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
        order_path, report_path = Path(folder) / "order.json", Path(folder) / "report.json"
        order_path.write_bytes(msgspec.json.encode(order))
        command = [sys.executable, "-P", "-m", _MODULE, str(order_path), str(report_path)]
        async with running_program(command, environment={"HF_HUB_OFFLINE": "1"}) as program:
            await program.finished(f"the learner's bench ({order.settings.method})", timeout_s)
        try:
            return msgspec.json.decode(report_path.read_bytes(), type=LearnerReport)
        except (OSError, msgspec.DecodeError) as error:
            raise BenchFailed(f"the learner's bench must write a report: {error}") from error


def measure(order: LearnerOrder) -> LearnerReport:
    """Measure in this process, on its GPU if it has one."""
    import torch

    from service.bench.training import synthetic_batch
    from trainer.kernels import fuse_kernels
    from trainer.lanes import open_lanes
    from trainer.learner import Learner

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = load_model(order.model, device)
    num_weights = count_weights(model)
    rate = matrix_tflops(device, model.dtype)
    fuse_kernels(model)
    learner = Learner(model, base_model=order.model, lanes=open_lanes(device, shares=()))
    prepare_s = _timed(lambda: _prepare(learner, order), device)
    learner.begin(order.settings, None)
    batch = synthetic_batch(order.shape, model.config.vocab_size, seed=0)
    results: list[StepResult] = []
    times = [
        _timed(lambda: results.append(_take_step(learner, batch)), device)
        for _ in range(order.num_warmup_steps + order.num_steps)
    ]
    return LearnerReport(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        dtype=str(model.dtype).removeprefix("torch."),
        method=order.settings.method,
        num_weights=num_weights,
        num_tokens=order.shape.num_tokens,
        matrix_tflops=rate,
        steps_s=tuple(times[order.num_warmup_steps :]),
        prepare_s=prepare_s,
        first_step_s=times[0],
        peak_memory_gib=torch.cuda.max_memory_reserved(device) / 2**30 if device.type == "cuda" else None,
        loss=results[-1].loss,
        grad_norm=results[-1].grad_norm,
    )


def load_model(folder: str, device: "torch.device") -> "PreTrainedModel":
    """A model as the learner gets it: frozen, in evaluation mode, in its own type."""
    from transformers import AutoModelForCausalLM, PreTrainedModel

    from trainer import attention

    attention.register()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", attn_implementation=attention.CAUSAL, low_cpu_mem_usage=True
    )
    return model.to(device).requires_grad_(False).eval()  # type: ignore[no-any-return, arg-type, unused-ignore]


def count_weights(model: "PreTrainedModel") -> int:
    """N: tied embeddings count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def matrix_tflops(device: "torch.device", dtype: "torch.dtype", size: int | None = None) -> float:
    """Rate of a square matrix product on normally distributed data: the median of a few samples, after a warm-up.

    The data matter: a GPU at its power limit is faster on zeros.
    """
    import torch

    side = size or (_GPU_MATRIX if device.type == "cuda" else _CPU_MATRIX)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def multiply() -> None:
        for _ in range(_MATRIX_REPEATS):
            torch.mm(left, right)

    multiply()
    seconds = median(_timed(multiply, device) for _ in range(_MATRIX_SAMPLES))
    return 2.0 * side**3 * _MATRIX_REPEATS / seconds / 1e12


def _prepare(learner: "Learner", order: LearnerOrder) -> None:
    learner.prepare(order.settings, max_length=order.length, reply_tokens=order.reply_tokens, temperature=_TEMPERATURE)


def _take_step(learner: "Learner", batch: "TrainingBatch") -> StepResult:
    from trainer.weights import FullWeights

    result = learner.step(batch)
    if isinstance(learner.weights, FullWeights):
        learner.weights.publish()
    return result


def _timed(work: Callable[[], object], device: "torch.device") -> float:
    """Seconds from a device with nothing to do to one with nothing left to do."""
    import torch

    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def _nothing() -> None:
    """A CPU has done its work when the call returns."""


def main() -> None:
    """Read an order, measure, write the report."""
    order_path, report_path = map(Path, sys.argv[1:])
    order = msgspec.json.decode(order_path.read_bytes(), type=LearnerOrder)
    report_path.write_bytes(msgspec.json.encode(measure(order)))


if __name__ == "__main__":
    main()
