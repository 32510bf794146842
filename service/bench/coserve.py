"""`coloq bench coserve`: a node under load, with and without training beside it.

    training alone ─► per rate: load ─► rounds: the same load while training, load again ─► per fixed pace: likewise

The loads of a rate have the same arrivals and prompts. Training works on fixed token counts without end, and what it
did in a load's window counts, no more; its rate is compared with the one that it had alone in the same node. Fixed
paces come last, in the controller's place, at the first rate: they show what there was to choose from. A shared host is
faster in one window and slower in the next, so several short rounds say more than a long one. When each engine step and
micro-batch began is kept beside the results, a file for each load with training.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console

from service.bench.control import BatchShape, ControlClient, PaceOrder, TrainOrder
from service.bench.coserve_rows import (
    AloneRow,
    CoserveRow,
    Trained,
    coserve_row,
    line_of,
    ratio_chart,
    table_of,
    training_chart,
)
from service.bench.load import LoadPlan, LoadResult, Poisson, run_load
from service.bench.node import BenchNode, bench_node
from service.bench.options import BenchOptions, content_of
from service.bench.prompt import calibrate
from service.bench.report import Report, written
from service.bench.scraper import Scraper
from service.demo.interrupts import sigterm_as_ctrl_c

_SETTLE_S = 2.5
"""After the requests that calibrate prompts: training has the whole GPU two seconds after the last one."""


@dataclass(slots=True)
class CoserveBench:
    """One run of the command."""

    options: BenchOptions
    rates: Sequence[float]
    order: TrainOrder
    alone_s: float
    paces: Sequence[PaceOrder]
    """Held at the first rate, one after the other."""
    num_rounds: int
    report: Report
    rows: list[CoserveRow] = field(default_factory=list)
    _num_traces: int = 0

    async def play(self, node: BenchNode) -> None:
        """Measure everything on a hosted node."""
        prompt = await calibrate(content_of(node), self.options.prompt_tokens, seed=self.options.seed)
        plans = {rate: self.options.load(content_of(node), Poisson(rate), prompt) for rate in self.rates}
        async with ControlClient(node.control_url or "", node.admin_key) as control:
            alone = await self._alone(control)
            for rate in self.rates:
                offs, ons = await self._rounds(plans[rate], node, control)
                self._keep(coserve_row(rate, None, offs, ons, alone, max_tokens=self.options.max_tokens))
            rate = self.rates[0]
            for pace in self.paces:
                await control.hold_pace(pace)
                offs, ons = await self._rounds(plans[rate], node, control)
                self._keep(coserve_row(rate, pace, offs, ons, alone, max_tokens=self.options.max_tokens))

    def present(self, console: Console) -> None:
        """Show and chart what was measured."""
        console.print(table_of(self.rows))
        self.report.chart("ratios", ratio_chart(self.rows))
        self.report.chart("training", training_chart(self.rows))

    async def _alone(self, control: ControlClient) -> AloneRow:
        await control.start_training(self.order)
        await asyncio.sleep(_SETTLE_S)
        began_s = (await control.training()).steps[-1].ended_s
        await asyncio.sleep(self.alone_s)
        row = AloneRow.of((await control.stop_training()).steps, began_s, began_s + self.alone_s)
        self.report.add("training_alone", row)
        self.report.say(f"training alone: {row.tokens_per_s:.0f} tok/s, a step in {row.step_s:.3f} s")
        return row

    async def _rounds(
        self, plan: LoadPlan, node: BenchNode, control: ControlClient
    ) -> tuple[list[LoadResult], list[Trained]]:
        """Loads without training, and with it between every two of them."""
        offs, ons = [await run_load(plan)], []
        for _ in range(self.num_rounds):
            ons.append(await self._beside_training(plan, node, control))
            offs.append(await run_load(plan))
        return offs, ons

    async def _beside_training(self, plan: LoadPlan, node: BenchNode, control: ControlClient) -> Trained:
        await control.start_training(self.order)
        await control.trace(on=True)
        async with Scraper(node.url) as scraper:
            load = await run_load(plan)
        trace = await control.trace(on=False)
        self._num_traces += 1
        (self.report.out / f"coserve-steps-{self._num_traces}.json").write_bytes(msgspec.json.encode(trace))
        return Trained(load, (await control.stop_training()).steps, scraper.within(load), trace)

    def _keep(self, row: CoserveRow) -> None:
        self.rows.append(row)
        self.report.add("rates", row)
        self.report.say(line_of(row))


def bench_coserve(
    options: BenchOptions,
    rates: Sequence[float],
    batch: BatchShape,
    *,
    alone_s: float,
    paces: Sequence[PaceOrder],
    num_rounds: int,
    console: Console,
) -> Report:
    """Run the bench and write its results; returns the report. Call it from the main thread.

    Raises:
        ColoqError: the node did not start, training failed, or nothing could be measured.
    """
    bench = coserve_of(options, rates, batch, alone_s=alone_s, paces=paces, num_rounds=num_rounds, console=console)
    report = bench.report
    with sigterm_as_ctrl_c(), written(report):
        settings = options.node(options.model_path())
        report.say("starting the node")
        with (
            tempfile.TemporaryDirectory(prefix="coloq-bench-") as folder,
            bench_node(Path(folder), settings, hosted=True, log_path=report.log_path) as node,
        ):
            asyncio.run(bench.play(node))
        bench.present(console)
    return report


def coserve_of(
    options: BenchOptions,
    rates: Sequence[float],
    batch: BatchShape,
    *,
    alone_s: float,
    paces: Sequence[PaceOrder],
    num_rounds: int,
    console: Console,
) -> CoserveBench:
    """The bench with an empty report."""
    configuration = {"options": options, "rates": list(rates), "batch": batch.model_dump(), "alone_s": alone_s}
    configuration |= {"paces": [pace.model_dump() for pace in paces], "rounds": num_rounds}
    report = Report("coserve", options.out, console, configuration)
    return CoserveBench(options, rates, TrainOrder(batch=batch), alone_s, paces, num_rounds, report)
