"""The learner's step alone: derived figures by hand, and real steps on a CPU."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from service.bench.failure import BenchFailed
from service.bench.learner_step import LearnerOrder, LearnerReport, matrix_tflops, measure, run_learner
from tests.tiny_model import save_tiny_llama
from trainer.config import TuningConfig
from trainer.plan import RunPlan
from trainer.ports import LearnerSettings
from trainer.records import RunRequest

REPORT = LearnerReport(
    device="gpu",
    dtype="bfloat16",
    method="full",
    num_weights=1_000_000_000,
    num_tokens=1000,
    matrix_tflops=24.0,
    steps_s=(0.4, 0.5, 9.0),
    prepare_s=9.0,
    first_step_s=20.0,
    peak_memory_gib=None,
    loss=0.0,
    grad_norm=1.0,
)


def settings(method: str) -> LearnerSettings:
    config = TuningConfig(method=method, microbatch_tokens=64, learning_rate=1e-6)  # type: ignore[arg-type]
    learner = RunPlan.of(RunRequest(), config, ()).learner
    return replace(learner, method=method)  # type: ignore[arg-type]


def test_figures_come_from_the_median_step() -> None:
    """1,000 tokens in 0.5 s are 2,000 a second; times 6 and a billion weights 12 TFLOP/s: half of 24."""
    assert REPORT.tokens_per_s == 2000.0
    assert REPORT.tflops == pytest.approx(12.0)
    assert REPORT.matrix_share == pytest.approx(0.5)
    assert REPORT.figures()["tokens_per_s"] == 2000.0


def test_reports_survive_the_way_between_processes() -> None:
    """What the child writes is what the bench reads."""
    assert msgspec.json.decode(msgspec.json.encode(REPORT), type=LearnerReport) == REPORT


def test_the_matrix_rate_is_measured_on_any_device() -> None:
    """On a CPU, a small product."""
    assert matrix_tflops(torch.device("cpu"), torch.float32, size=64) > 0


@pytest.mark.parametrize("method", ["adapter", "full"])
def test_steps_are_taken_and_timed(method: str, tmp_path: Path) -> None:
    """4 sequences of 32 positions are 128 tokens; the model's weights count without the adapter's."""
    model = save_tiny_llama(tmp_path / "tiny")
    report = measure(LearnerOrder(str(model), settings(method), 4, 32, 8, num_steps=2, num_warmup_steps=1))
    assert (report.method, report.device, report.num_tokens) == (method, "cpu", 128)
    # Two matrices of 1,000 tokens; 4 layers of q and o, k and v, three matrices of the MLP, two norms; the last norm.
    assert report.num_weights == 2 * 1000 * 128 + 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 384 + 2 * 128) + 128
    assert len(report.steps_s) == 2
    assert report.grad_norm > 0
    assert report.peak_memory_gib is None


async def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    """A folder without a model."""
    with pytest.raises(BenchFailed, match=r"the learner's bench \(adapter\) ended with status 1"):
        await run_learner(LearnerOrder(str(tmp_path), settings("adapter"), 4, 32, 8, 1), timeout_s=120)
