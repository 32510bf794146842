"""Charts of results, drawn by matplotlib without a display."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#8a94a6", "#1f6feb", "#c2410c", "#1a7f37")
_SIZE = (9.0, 3.6)


def grouped_bars(
    titles: Sequence[str], groups: Sequence[str], series: Mapping[str, Sequence[Sequence[float]]], unit: str
) -> Figure:
    """One panel per title with bars side by side: ``series[name][panel][group]``."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    width = 0.8 / len(series)
    for panel, (axes, title) in enumerate(zip(panels, titles, strict=True)):
        for number, (name, values) in enumerate(series.items()):
            places = [place + (number - (len(series) - 1) / 2) * width for place in range(len(groups))]
            axes.bar(places, values[panel], width, color=COLORS[number % len(COLORS)], label=name if not panel else "")
        axes.set_xticks(range(len(groups)), list(groups))
        _plain(axes, title, unit)
    figure.legend(frameon=False, loc="outside upper right", ncols=len(series))
    return figure


def paired_points(quiet: Sequence[float], swap: Sequence[float], unit: str) -> Figure:
    """Two values of each publication in their order."""
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    for number, (name, values) in enumerate({"window before": quiet, "window with the publication": swap}.items()):
        axes.scatter(range(1, len(values) + 1), values, s=8, color=COLORS[number], label=name)
    axes.set_xlabel("publication")
    _plain(axes, "longest gap between engine steps", unit)
    figure.legend(frameon=False, loc="outside upper right", ncols=2)
    return figure


def _plain(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_ylabel(unit)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
