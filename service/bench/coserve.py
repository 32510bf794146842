"""`coloq bench coserve`: a node under load, with and without training beside it.

    training alone ─► per rate: load ─► the same load while training ─► load again ─► per fixed pace: the first load

The loads of a rate have the same arrivals and prompts. Training works on fixed token counts without end, and what it
did in a load's window counts, no more; its rate is compared with the one that it had alone in the same node. Fixed
paces come last, in the controller's place: they show what there was to choose from.
"""

import asyncio
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from rich.console import Console

from service.bench.charts import grouped_bars
from service.bench.control import BatchShape, ControlClient, PaceOrder, TrainedStep, TrainOrder
from service.bench.load import Exchange, LoadPlan, LoadResult, Poisson, run_load
from service.bench.node import BenchNode, bench_node
from service.bench.options import BenchOptions, content_of
from service.bench.prompt import calibrate
from service.bench.report import Report, interval, table, written
from service.bench.scraper import Metric, Scraper
from service.bench.statistics import (
    LoadSummary,
    Ratio,
    first_tokens_ms,
    inter_tokens_ms,
    latencies_ms,
    merged,
    quantile_ratio,
    summarise,
)
from service.demo.interrupts import sigterm_as_ctrl_c

_SETTLE_S = 2.5
"""After the requests that calibrate prompts: training has the whole GPU two seconds after the last one."""
_SLOWDOWN = "coloq_slo_step_slowdown"
_QUANTITIES: Mapping[str, Callable[[Iterable[Exchange]], list[float]]] = {
    "latency": latencies_ms,
    "first token": first_tokens_ms,
    "inter-token": inter_tokens_ms,
}


@dataclass(frozen=True, slots=True)
class AloneRow:
    """Training with the node otherwise idle."""

    tokens_per_s: float
    num_steps: int
    step_s: float
    """Median, as the learner measured it."""


@dataclass(frozen=True, slots=True)
class CoserveRow:
    """One rate."""

    rate: float
    pace: str | None
    """What the trainer was held to, as ``NUM_SMS:DUTY``; None for the controller's choice."""
    off: LoadSummary
    """Both loads without training together."""
    on: LoadSummary
    p50: dict[str, Ratio | None]
    """Training on over off, by quantity."""
    p99: dict[str, Ratio | None]
    drift_p99: Ratio | None
    """Latency of the second load without training over the first: what the ratios could show by chance."""
    train_tokens_per_s: float
    train_share: float
    """Of the rate alone."""
    num_steps: int
    """Optimizer steps that ended in the window."""
    step_slowdown: float | None
    """Engine steps over those of their size without training in the same seconds (trainer.matched_steps): what training
    costs, free of what the host or the load did between two windows."""
    metrics: dict[str, Metric]


@dataclass(slots=True)
class CoserveBench:
    """One run of the command."""

    options: BenchOptions
    rates: Sequence[float]
    order: TrainOrder
    alone_s: float
    paces: Sequence[PaceOrder]
    """Held at the first rate, one after the other."""
    report: Report
    rows: list[CoserveRow] = field(default_factory=list)

    async def play(self, node: BenchNode) -> None:
        """Measure everything on a hosted node."""
        prompt = await calibrate(content_of(node), self.options.prompt_tokens, seed=self.options.seed)
        async with ControlClient(node.control_url or "", node.admin_key) as control:
            alone = await self._alone(control)
            idle: list[LoadResult] = []
            for rate in self.rates:
                plan = self.options.load(content_of(node), Poisson(rate), prompt)
                before = await run_load(plan)
                seen = await self._beside_training(plan, node, control)
                after = await run_load(plan)
                drift = quantile_ratio(latencies_ms(after.exchanges), latencies_ms(before.exchanges), 0.99)
                idle.append(merged([before, after]))
                self._keep(self._row(rate, None, seen, idle[-1], alone, drift))
            for pace in self.paces:
                await control.hold_pace(pace)
                plan = self.options.load(content_of(node), Poisson(self.rates[0]), prompt)
                seen = await self._beside_training(plan, node, control)
                self._keep(self._row(self.rates[0], pace, seen, idle[0], alone, None))

    def present(self, console: Console) -> None:
        """Show and chart what was measured."""
        _show(self.rows, console)
        self.report.chart("ratios", _ratio_chart(self.rows))
        self.report.chart("training", _training_chart(self.rows))

    async def _alone(self, control: ControlClient) -> AloneRow:
        await control.start_training(self.order)
        await asyncio.sleep(_SETTLE_S)
        began_s = (await control.training()).steps[-1].ended_s
        await asyncio.sleep(self.alone_s)
        steps = (await control.stop_training()).steps
        ended_s = began_s + self.alone_s
        row = AloneRow(
            tokens_per_s=tokens_within(steps, began_s, ended_s) / self.alone_s,
            num_steps=sum(began_s < step.ended_s <= ended_s for step in steps),
            step_s=median(step.step_s for step in steps[1:] or steps),
        )
        self.report.add("training_alone", row)
        self.report.say(f"training alone: {row.tokens_per_s:.0f} tok/s, a step in {row.step_s:.3f} s")
        return row

    async def _beside_training(self, plan: LoadPlan, node: BenchNode, control: ControlClient) -> "_Trained":
        await control.start_training(self.order)
        async with Scraper(node.url) as scraper:
            load = await run_load(plan)
        return _Trained(load, (await control.stop_training()).steps, scraper.within(load))

    def _row(
        self,
        rate: float,
        pace: PaceOrder | None,
        seen: "_Trained",
        off: LoadResult,
        alone: AloneRow,
        drift_p99: Ratio | None,
    ) -> CoserveRow:
        during = seen.load
        trained = tokens_within(seen.steps, during.began_s, during.ended_s) / during.duration_s
        return CoserveRow(
            rate=rate,
            pace=None if pace is None else str(pace),
            off=summarise(off, self.options.max_tokens),
            on=summarise(during, self.options.max_tokens),
            p50=_ratios(during, off, 0.5),
            p99=_ratios(during, off, 0.99),
            drift_p99=drift_p99,
            train_tokens_per_s=trained,
            train_share=trained / alone.tokens_per_s if alone.tokens_per_s else 0.0,
            num_steps=sum(during.began_s < step.ended_s <= during.ended_s for step in seen.steps),
            step_slowdown=_slowdown(seen.metrics),
            metrics=seen.metrics,
        )

    def _keep(self, row: CoserveRow) -> None:
        self.rows.append(row)
        self.report.add("rates", row)
        self.report.say(line_of(row))


@dataclass(frozen=True, slots=True)
class _Trained:
    """A load, and what training did meanwhile."""

    load: LoadResult
    steps: Sequence[TrainedStep]
    metrics: dict[str, Metric]


def _slowdown(metrics: Mapping[str, Metric]) -> float | None:
    metric = metrics.get(_SLOWDOWN)
    return None if metric is None or math.isnan(metric.last) else metric.last


def _ratios(on: LoadResult, off: LoadResult, quantile: float) -> dict[str, Ratio | None]:
    return {name: quantile_ratio(of(on.exchanges), of(off.exchanges), quantile) for name, of in _QUANTITIES.items()}


def tokens_within(steps: Iterable[TrainedStep], began_s: float, ended_s: float) -> float:
    """Tokens that were trained on in a window; a step that crosses its border counts by its share of time inside."""
    total = 0.0
    for step in steps:
        inside_s = min(step.ended_s, ended_s) - max(step.began_s, began_s)
        if inside_s > 0:
            total += step.num_tokens * inside_s / (step.ended_s - step.began_s)
    return total


def bench_coserve(
    options: BenchOptions,
    rates: Sequence[float],
    batch: BatchShape,
    *,
    alone_s: float,
    paces: Sequence[PaceOrder],
    console: Console,
) -> Report:
    """Run the bench and write its results; returns the report. Call it from the main thread.

    Raises:
        ColoqError: the node did not start, training failed, or nothing could be measured.
    """
    bench = coserve_of(options, rates, batch, alone_s=alone_s, paces=paces, console=console)
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
    console: Console,
) -> CoserveBench:
    """The bench with an empty report."""
    configuration = {"options": options, "rates": list(rates), "batch": batch.model_dump(), "alone_s": alone_s}
    configuration["paces"] = [pace.model_dump() for pace in paces]
    report = Report("coserve", options.out, console, configuration)
    return CoserveBench(options, rates, TrainOrder(batch=batch), alone_s, paces, report)


def line_of(row: CoserveRow) -> str:
    """A row as a line of progress."""
    off = f"{row.off.latency_ms.p50:.0f} ms without training, " if row.off.latency_ms is not None else ""
    return (
        f"{name_of(row)}: {off}latency p50 {interval(row.p50['latency'])}, p99 {interval(row.p99['latency'])}, "
        f"training {row.train_tokens_per_s:.0f} tok/s = {row.train_share:.2f} of alone, "
        f"engine steps {'–' if row.step_slowdown is None else f'{row.step_slowdown:.3f}'}, "
        f"{row.off.num_failed + row.on.num_failed} failed"
    )


def name_of(row: CoserveRow) -> str:
    """The rate, and the pace where it was held."""
    return f"{row.rate:g} req/s" if row.pace is None else f"{row.rate:g} req/s, {row.pace}"


def _show(rows: Sequence[CoserveRow], console: Console) -> None:
    heads = (
        "load",
        *(f"{name} {q}" for name in _QUANTITIES for q in ("p50", "p99")),
        "train tok/s",
        "share",
        "steps",
        "failed",
    )
    cells = [
        (
            name_of(row),
            *(interval(ratios[name]) for name in _QUANTITIES for ratios in (row.p50, row.p99)),
            f"{row.train_tokens_per_s:.0f}",
            f"{row.train_share:.3f}",
            "–" if row.step_slowdown is None else f"{row.step_slowdown:.3f}",
            str(row.off.num_failed + row.on.num_failed),
        )
        for row in rows
    ]
    console.print(table("Training on over off (95 % interval)", heads, cells))


def _ratio_chart(rows: Sequence[CoserveRow]) -> Figure:
    series = {
        quantile: [[_value(getattr(row, quantile)[name]) for row in rows] for name in _QUANTITIES]
        for quantile in ("p50", "p99")
    }
    return grouped_bars(list(_QUANTITIES), [name_of(row) for row in rows], series, "training on over off")


def _training_chart(rows: Sequence[CoserveRow]) -> Figure:
    series = {"beside the load": [[row.train_share for row in rows]]}
    return grouped_bars(["training rate"], [name_of(row) for row in rows], series, "share of the rate alone")


def _value(ratio: Ratio | None) -> float:
    return ratio.value if ratio is not None else 0.0
