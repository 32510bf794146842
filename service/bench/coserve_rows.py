"""What `coloq bench coserve` has measured of a rate, in numbers, as a table and as charts."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from matplotlib.figure import Figure
from rich.table import Table

from service.bench.charts import grouped_bars
from service.bench.control import PaceOrder, TrainedStep
from service.bench.load import Exchange, LoadResult
from service.bench.report import interval, table
from service.bench.scraper import Metric
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
from service.bench.steps import StepFigures, step_figures
from trainer.step_trace import StepTrace

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

    @classmethod
    def of(cls, steps: Sequence[TrainedStep], began_s: float, ended_s: float) -> "AloneRow":
        """Of the steps in a window."""
        return cls(
            tokens_per_s=tokens_within(steps, began_s, ended_s) / (ended_s - began_s),
            num_steps=sum(began_s < step.ended_s <= ended_s for step in steps),
            step_s=median(step.step_s for step in steps[1:] or steps),
        )


@dataclass(frozen=True, slots=True)
class CoserveRow:
    """One rate."""

    rate: float
    pace: str | None
    """What the trainer was held to, as ``NUM_SMS:DUTY``; None for the controller's choice."""
    off: LoadSummary
    """All loads without training together."""
    on: LoadSummary
    """All loads with training together."""
    rounds: list[float | None]
    """Of each round the ratio of the median latencies: the load with training over those before and after it."""
    p50: dict[str, Ratio | None]
    """Training on over off, by quantity."""
    p99: dict[str, Ratio | None]
    drift_p99: Ratio | None
    """Latency of the last load without training over the first: what the ratios could show by chance."""
    train_tokens_per_s: float
    train_share: float
    """Of the rate alone."""
    num_steps: int
    """Optimizer steps that ended in the window."""
    step_slowdown: float | None
    """Engine steps over those of their size without training in the same seconds (trainer.matched_steps): what training
    costs, free of what the host or the load did between two windows."""
    steps: list[StepFigures]
    """Of each load with training."""
    metrics: dict[str, Metric]


@dataclass(frozen=True, slots=True)
class Trained:
    """A load, and what training did meanwhile."""

    load: LoadResult
    steps: Sequence[TrainedStep]
    metrics: Mapping[str, Metric]
    trace: StepTrace

    @property
    def num_tokens(self) -> float:
        """Trained on within the load's window."""
        return tokens_within(self.steps, self.load.began_s, self.load.ended_s)

    @property
    def num_steps(self) -> int:
        """Optimizer steps that ended in the window."""
        return sum(self.load.began_s < step.ended_s <= self.load.ended_s for step in self.steps)


def coserve_row(
    rate: float,
    pace: PaceOrder | None,
    offs: Sequence[LoadResult],
    ons: Sequence[Trained],
    alone: AloneRow,
    *,
    max_tokens: int,
) -> CoserveRow:
    """One rate's figures.

    Args:
        offs: loads without training, one more than there are rounds; each round lies between two of them.
        ons: the rounds' loads with training.
    """
    off, on = merged(offs), merged([seen.load for seen in ons])
    trained = sum(seen.num_tokens for seen in ons) / on.duration_s
    metrics = _mean_metrics([seen.metrics for seen in ons])
    return CoserveRow(
        rate=rate,
        pace=None if pace is None else str(pace),
        off=summarise(off, max_tokens),
        on=summarise(on, max_tokens),
        rounds=[_round(seen.load, offs[place : place + 2]) for place, seen in enumerate(ons)],
        p50=_ratios(on, off, 0.5),
        p99=_ratios(on, off, 0.99),
        drift_p99=quantile_ratio(latencies_ms(offs[-1].exchanges), latencies_ms(offs[0].exchanges), 0.99),
        train_tokens_per_s=trained,
        train_share=trained / alone.tokens_per_s if alone.tokens_per_s else 0.0,
        num_steps=sum(seen.num_steps for seen in ons),
        step_slowdown=_slowdown(metrics),
        steps=[step_figures(seen.trace, seen.load.began_s, seen.load.ended_s) for seen in ons],
        metrics=metrics,
    )


def _round(on: LoadResult, around: Sequence[LoadResult]) -> float | None:
    ratio = quantile_ratio(latencies_ms(on.exchanges), latencies_ms(merged(around).exchanges), 0.5)
    return None if ratio is None else ratio.value


def _mean_metrics(windows: Sequence[Mapping[str, Metric]]) -> dict[str, Metric]:
    """Over windows: the mean of the means, the last one's last."""
    found: dict[str, list[Metric]] = {}
    for window in windows:
        for name, metric in window.items():
            found.setdefault(name, []).append(metric)
    return {name: Metric(fmean(metric.mean for metric in of), of[-1].last) for name, of in found.items()}


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


def table_of(rows: Sequence[CoserveRow]) -> Table:
    """All rows."""
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
    return table("Training on over off (95 % interval)", heads, cells)


def ratio_chart(rows: Sequence[CoserveRow]) -> Figure:
    """Ratios of the quantiles, training on over off."""
    series = {
        quantile: [[_value(getattr(row, quantile)[name]) for row in rows] for name in _QUANTITIES]
        for quantile in ("p50", "p99")
    }
    return grouped_bars(list(_QUANTITIES), [name_of(row) for row in rows], series, "training on over off")


def training_chart(rows: Sequence[CoserveRow]) -> Figure:
    """Training's rate beside each load."""
    series = {"beside the load": [[row.train_share for row in rows]]}
    return grouped_bars(["training rate"], [name_of(row) for row in rows], series, "share of the rate alone")


def _value(ratio: Ratio | None) -> float:
    return ratio.value if ratio is not None else 0.0
