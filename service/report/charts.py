"""Which charts a report has, and how they are drawn: by matplotlib, without a display.

What is known is drawn together under a title that says what it is; every other series gets a chart under its own name.
"""

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from service.http.tuning_schema import RunView
from service.report.series import PHASES, Points

_SIZE = (9.0, 3.4)
_MARK = "#57606a"
_COLORS = mpl.color_sequences["tab10"] + mpl.color_sequences["tab20b"]


@dataclass(frozen=True, slots=True)
class Chart:
    """Series that are drawn into one pair of axes."""

    name: str
    """Of the file, without its ending."""
    title: str
    unit: str
    series: Mapping[str, Points]
    """By label."""
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class _Known:
    """A chart of certain series: of these names, or of all below a table's name that ends in `/`."""

    name: str
    title: str
    unit: str
    series: tuple[str, ...]
    stacked: bool = False


_KNOWN = (
    _Known("reward", "Reward", "mean over the step's replies", ("reward_mean", "reward_std")),
    _Known("reward-by-part", "Reward by part", "mean", ("parts/",)),
    _Known("reward-by-language", "Reward by language", "mean", ("reward_by_language/",)),
    _Known("fidelity", "Language fidelity by language", "mean", ("parts_by_language/fidelity/",)),
    _Known("effective-sample-size", "Effective sample size", "share of the tokens", ("effective_sample_size",)),
    _Known("mismatch", "Mismatch of engine and trainer", "|difference| in nats", ("mismatch_mean",)),
    _Known("gradient-norm", "Gradient norm", "2-norm before clipping", ("grad_norm",)),
    _Known("clip-fraction", "Clip fraction", "share of the tokens", ("clip_fraction",)),
    _Known("throughput", "Throughput", "tokens/s", ("tokens_per_s", "train_tokens_per_s")),
    _Known("seconds", "Seconds by phase", "s", PHASES, stacked=True),
    _Known("dropped", "Not trained on, by reason", "replies or groups", ("dropped/",), stacked=True),
    _Known("loss", "Loss", "", ("loss",)),
)


def charts_of(series: Mapping[str, Points]) -> list[Chart]:
    """The charts of a run: those that are known, then one for each other figure or table of figures."""
    left = {name: points for name, points in series.items() if name != "version"}
    charts = []
    for known in _KNOWN:
        taken = {name: left.pop(name) for item in known.series for name in sorted(left) if _belongs(name, item)}
        if taken:
            charts.append(Chart(known.name, known.title, known.unit, _labelled(taken), known.stacked))
    return charts + [
        Chart(table.replace("/", "-").replace("_", "-"), table.replace("_", " "), "", _labelled(taken))
        for table, taken in _by_table(left)
    ]


def draw(chart: Chart, run: RunView) -> bytes:
    """A chart as PNG, with a line where the run was resumed and one where it published."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(chart.title, loc="left", fontsize=11)
    axes.set_xlabel("step")
    axes.set_ylabel(chart.unit)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    (_stack if chart.stacked else _lines)(axes, chart.series)
    _mark(axes, run)
    if len(chart.series) > 1:
        figure.legend(frameon=False, loc="outside right upper", fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _belongs(name: str, item: str) -> bool:
    return name.startswith(item) if item.endswith("/") else name == item


def _labelled(series: Mapping[str, Points]) -> dict[str, Points]:
    """By the last part of the name, which is unique in a table; a phase's seconds by the phase."""
    return {
        (name.removesuffix("_s") if name in PHASES else name.rpartition("/")[2]): points
        for name, points in series.items()
    }


def _by_table(series: Mapping[str, Points]) -> Iterator[tuple[str, dict[str, Points]]]:
    tables: dict[str, dict[str, Points]] = {}
    for name, points in series.items():
        tables.setdefault(name.rpartition("/")[0] or name, {})[name] = points
    yield from tables.items()


def _lines(axes: Axes, series: Mapping[str, Points]) -> None:
    for number, (label, points) in enumerate(series.items()):
        color = _COLORS[number % len(_COLORS)]
        axes.plot(*_columns(points), label=label, color=color, linewidth=1.4, marker="o", markersize=2.5)


def _stack(axes: Axes, series: Mapping[str, Points]) -> None:
    bottoms: dict[int, float] = {}
    for number, (label, points) in enumerate(series.items()):
        steps, values = _columns(points)
        below = [bottoms.get(step, 0.0) for step in steps]
        axes.bar(steps, values, bottom=below, width=0.9, label=label, color=_COLORS[number % len(_COLORS)])
        bottoms |= {step: low + value for step, low, value in zip(steps, below, values, strict=True)}


def _mark(axes: Axes, run: RunView) -> None:
    published = {step.step for step in run.steps if step.version in run.published}
    for word, style, at in (("published", ":", published), ("resumed", "--", set(run.resumed_after))):
        for step in sorted(at):
            axes.axvline(step + 0.5, color=_MARK, linewidth=0.8, linestyle=style)
            axes.annotate(
                word,
                (step + 0.5, 1.0),
                xycoords=("data", "axes fraction"),
                fontsize=7,
                color=_MARK,
                rotation=90,
                va="top",
            )


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [value for _, value in points]
