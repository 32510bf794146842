"""`coloq bench suite`: coserve and then swap on one node, which starts once.

A start with CUDA graphs and torch.compile takes minutes, more than what is measured then.
"""

import asyncio
import tempfile
from pathlib import Path

from rich.console import Console

from service.bench.coserve import CoserveBench
from service.bench.node import BenchNode, bench_node
from service.bench.report import written
from service.bench.swap import SwapBench
from service.demo.interrupts import sigterm_as_ctrl_c


def bench_suite(coserve: CoserveBench, swap: SwapBench, *, console: Console) -> None:
    """Run both benches, whose options describe the same node, and write their results. Call it from the main thread.

    Raises:
        ColoqError: the node did not start, training or a publication failed, or nothing could be measured.
    """
    options, report = coserve.options, coserve.report
    with sigterm_as_ctrl_c(), tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder:
        settings = options.node(options.model_path())
        report.say("starting the node")
        report.out.mkdir(parents=True, exist_ok=True)
        with bench_node(Path(folder), settings, hosted=True, log_path=report.log_path) as node:
            _coserve(coserve, node, console)
            _swap(swap, node, console)


def _coserve(bench: CoserveBench, node: BenchNode, console: Console) -> None:
    with written(bench.report):
        asyncio.run(bench.play(node))
        bench.present(console)


def _swap(bench: SwapBench, node: BenchNode, console: Console) -> None:
    with written(bench.report):
        bench.present(asyncio.run(bench.play(node)), console)
