"""`coloq bench train`: the learner's step alone, and GRPO end to end beside TRL's GRPOTrainer.

    each method: learner alone (a process of its own) ─► with --against trl: node ─► stopped ─► TRL

One thing at a time holds the device. What was measured is written even when the next measurement fails.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from service.bench.control import BatchShape
from service.bench.grpo import NodeRun, trl_settings, tuning_overrides
from service.bench.learner_step import LearnerOrder, LearnerReport, run_learner
from service.bench.node import NodeSettings
from service.bench.options import BenchOptions
from service.bench.peers.trl import run_trl
from service.bench.peers.vllm_server import vllm_runs_on_cpu
from service.bench.report import Report, table, written
from service.demo.interrupts import sigterm_as_ctrl_c
from trainer.plan import RunPlan
from trainer.records import RunRequest

NODE, PEER = "coloq", "trl"
_PHASES = ("rollout", "score", "train", "install", "other")
_LEARNER_HEADS = ("method", "step ms", "tok/s", "TFLOP/s (6ND)", "matrix TFLOP/s", "share", "peak GiB")
_GRPO_HEADS = ("system", "method", "step s", *_PHASES, "tokens", "tok/s")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """What `bench train` measures."""

    methods: tuple[str, ...]
    batch: BatchShape
    """Of the learner's step alone."""
    num_steps: int
    """Timed steps of the learner alone; 0 leaves it out."""
    microbatch_tokens: int | None
    """Most positions of a forward pass; None leaves it to the node."""
    rank: int
    against_trl: bool
    prompts_per_step: int
    group_size: int
    num_grpo_steps: int
    publish_every: int | None
    """See ``publishes_every``."""
    trl_microbatch: int
    """Sequences of TRL's forward pass."""
    vllm_memory: float
    """vLLM's share of the GPU in TRL's process."""
    vllm_arguments: str
    liger: bool
    timeout_s: float
    """Of each measurement."""

    def publishes_every(self, method: str) -> int:
        """Steps between two publications: as asked, or each by method `adapter`, and the last alone by `full`, whose
        steps go live at once and whose weights would fill a disk."""
        return self.publish_every or (self.num_grpo_steps if method == "full" else 1)


@dataclass(frozen=True, slots=True)
class GrpoRow:
    """GRPO end to end on one system: means over the measured steps."""

    system: str
    method: str
    step_s: float
    phases_s: dict[str, float]
    """What is one system's `install` (new weights into the engine) is the other's too; `other` is the rest."""
    num_sequences: float
    num_tokens: float
    """Sampled tokens of a step."""
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """The node over TRL."""

    method: str
    speedup: float
    """Sampled tokens per second of whole steps."""


@dataclass(slots=True)
class TrainBench:
    """One run of the command."""

    options: BenchOptions
    train: TrainOptions
    report: Report

    def play(self) -> None:
        """Measure everything. Call it from the main thread."""
        model = self.options.model_path()
        for method in self.train.methods:
            settings = self._node_settings(model, method)
            if self.train.num_steps:
                self._add_learner(asyncio.run(self._learner(settings)))
            if self.train.against_trl:
                asyncio.run(self._grpo(settings))

    def _node_settings(self, model: Path, method: str) -> NodeSettings:
        overrides = tuning_overrides(
            method=method,
            prompts_per_step=self.train.prompts_per_step,
            group_size=self.train.group_size,
            reply_tokens=self.options.max_tokens,
            microbatch_tokens=self.train.microbatch_tokens,
            rank=self.train.rank,
        )
        return NodeSettings(
            model=model,
            prompt_tokens=self.options.prompt_tokens,
            max_tokens=self.options.max_tokens,
            on_cpu=vllm_runs_on_cpu(),
            overrides=(*overrides, *self.options.overrides),
        )

    async def _learner(self, settings: NodeSettings) -> LearnerReport:
        tuning = settings.config.tuning
        self.report.say(f"the learner alone, method {tuning.method}")
        order = LearnerOrder(
            model=str(settings.model),
            settings=RunPlan.of(RunRequest(), tuning, ()).learner,
            batch_size=self.train.batch.batch_size,
            length=self.train.batch.length,
            reply_tokens=self.train.batch.reply_tokens,
            num_steps=self.train.num_steps,
        )
        return await run_learner(order, timeout_s=self.train.timeout_s)

    def _add_learner(self, measured: LearnerReport) -> None:
        self.report.add("learner", measured.figures())
        self.report.say(
            f"{measured.method}: {measured.tokens_per_s:.0f} tok/s, {measured.tflops:.3g} TFLOP/s (6 N D), "
            f"{measured.matrix_share:.1%} of the matrix rate {measured.matrix_tflops:.3g}"
        )

    async def _grpo(self, settings: NodeSettings) -> None:
        publish_every = self.train.publishes_every(settings.config.tuning.method)
        run = NodeRun(settings, self.train.num_grpo_steps, publish_every, self.options.seed, self.train.timeout_s)
        peer_settings = trl_settings(
            run,
            microbatch=self.train.trl_microbatch,
            vllm_memory=self.train.vllm_memory,
            vllm_arguments=self.train.vllm_arguments,
            liger=self.train.liger,
        )
        node = self._add_grpo(await self._node(run), settings)
        self.report.say("starting TRL")
        log_path = self._log_path(PEER, peer_settings.method)
        result = await run_trl(peer_settings, timeout_s=self.train.timeout_s, log_path=log_path)
        self.report.add("trl_runs", result)
        peer = self._add_grpo(trl_row(result.summary(), peer_settings.method), settings)
        self.report.add("comparison", ComparisonRow(node.method, node.tokens_per_s / peer.tokens_per_s))

    async def _node(self, run: NodeRun) -> GrpoRow:
        method = run.settings.config.tuning.method
        self.report.say("starting the node")
        with tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
            measured = await run.measure(Path(folder), self._log_path(NODE, method))
        self.report.add("node_runs", measured)
        return node_row(measured.summary(), method)

    def _log_path(self, system: str, method: str) -> Path:
        return self.options.out / f"train-{system}-{method}.log"

    def _add_grpo(self, row: GrpoRow, settings: NodeSettings) -> GrpoRow:
        self.report.add("grpo", row)
        self.report.say(
            f"{row.system} {settings.config.tuning.method}: a step of {row.num_tokens:.0f} tokens takes "
            f"{row.step_s:.3f} s, {row.tokens_per_s:.0f} tok/s"
        )
        return row


def bench_train(options: BenchOptions, train: TrainOptions, *, console: Console) -> Report:
    """Run the bench and write its results; returns the report.

    Raises:
        ColoqError: a measurement failed.
    """
    report = Report("train", options.out, console, {"options": options, "train": train})
    with sigterm_as_ctrl_c(), written(report):
        TrainBench(options, train, report).play()
        _show(report)
    return report


def node_row(summary: dict[str, float], method: str) -> GrpoRow:
    """The node's means as a row."""
    return _row(NODE, method, summary, {phase: summary[f"{phase}_s"] for phase in _PHASES})


def trl_row(summary: dict[str, float], method: str) -> GrpoRow:
    """TRL's means as a row. What lies between its phases counts as training."""
    names = {"rollout": "generation_s", "score": "score_s", "train": "train_s", "install": "sync_s"}
    return _row(PEER, method, summary, {**{phase: summary[name] for phase, name in names.items()}, "other": 0.0})


def _row(system: str, method: str, summary: dict[str, float], phases_s: dict[str, float]) -> GrpoRow:
    return GrpoRow(
        system,
        method,
        summary["total_s"],
        phases_s,
        summary["num_sequences"],
        summary["num_tokens"],
        summary["tokens_per_s"],
    )


def _show(report: Report) -> None:
    rows = report.rows
    if "learner" in rows:
        cells = [_learner_cells(row) for row in rows["learner"]]
        report.console.print(table("Learner's step alone", _LEARNER_HEADS, cells))
    if "grpo" in rows:
        report.console.print(table("GRPO end to end", _GRPO_HEADS, [_grpo_cells(row) for row in rows["grpo"]]))
    for row in rows.get("comparison", ()):
        report.console.print(f"{row['method']}: {row['speedup']:.2f} times TRL's rate")


def _learner_cells(row: dict[str, Any]) -> Sequence[str]:
    peak = row["peak_memory_gib"]
    return (
        row["method"],
        f"{row['step_s'] * 1000:.1f}",
        f"{row['tokens_per_s']:.0f}",
        f"{row['tflops']:.4g}",
        f"{row['matrix_tflops']:.4g}",
        f"{row['matrix_share']:.1%}",
        "–" if peak is None else f"{peak:.1f}",
    )


def _grpo_cells(row: dict[str, Any]) -> Sequence[str]:
    phases = [f"{row['phases_s'][phase]:.3f}" for phase in _PHASES]
    figures = (f"{row['num_tokens']:.0f}", f"{row['tokens_per_s']:.0f}")
    return (row["system"], row["method"], f"{row['step_s']:.3f}", *phases, *figures)
