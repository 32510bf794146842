"""Charts of what was learnt: curves, held-out figures, what changed, staleness. No mean hides a seed."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from service.bench.charts import COLORS
from service.bench.learning.figures import ALL, Change, Point, smoothed

BEFORE, AFTER = COLORS[0], COLORS[1]
_CURVES = (10.0, 3.8)
_PANEL_HEIGHT, _WIDTH = 3.0, 10.0
_WINDOW = 5
"""Steps that a curve is smoothed over."""
_PER_ROW = 4
_SPREAD = 0.5
"""Room that the dots of one language take side by side."""


def reward_curves(runs: Mapping[str, Sequence[Sequence[Point]]]) -> Figure:
    """Training reward of each system's runs against wall-clock and against samples: ``runs[system][run]``."""
    figure = Figure(figsize=_CURVES, layout="constrained")
    by_time, by_samples = figure.subplots(1, 2, sharey=True)
    for number, (system, curves) in enumerate(runs.items()):
        for run, points in enumerate(curves):
            rewards = smoothed([point.reward for point in points], _WINDOW)
            label = system if not run else None
            for axes, places in (
                (by_time, [point.at_s for point in points]),
                (by_samples, [point.num_samples for point in points]),
            ):
                axes.plot(places, rewards, color=_color(number), linewidth=1.2, label=label)
    by_time.set_xlabel("seconds since the run began")
    by_samples.set_xlabel("replies sampled")
    by_time.set_ylabel(f"training reward, mean of {_WINDOW} steps")
    by_time.legend(frameon=False, fontsize=8)
    for axes in (by_time, by_samples):
        _plain(axes)
    return figure


def language_curves(runs: Sequence[Sequence[Mapping[str, float]]]) -> Figure:
    """One panel per language: training reward by step, a line per run. ``runs[run][step]`` has the step's languages."""
    languages = sorted({code for steps in runs for step in steps for code in step})
    num_rows = -(-len(languages) // _PER_ROW)
    figure = Figure(figsize=(_WIDTH, 1.9 * num_rows), layout="constrained")
    panels = figure.subplots(num_rows, _PER_ROW, squeeze=False, sharey=True, sharex=True).flat
    for code, axes in zip(languages, panels, strict=False):
        for number, steps in enumerate(runs):
            seen = [(at, step[code]) for at, step in enumerate(steps, start=1) if code in step]
            rewards = smoothed([reward for _, reward in seen], _WINDOW)
            axes.plot([at for at, _ in seen], rewards, color=_color(number), linewidth=1)
        axes.set_title(f"{code}: training reward by step", fontsize=8)
        _plain(axes)
    for axes in panels:
        axes.set_visible(False)
    return figure


def before_and_after(rows: Sequence[Change], metrics: Sequence[str]) -> Figure:
    """One panel per metric; per language a dot for every seed before and after, joined."""
    figure = Figure(figsize=(_WIDTH, _PANEL_HEIGHT * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), 1, squeeze=False)[:, 0]
    languages = _languages(rows)
    for axes, metric in zip(panels, metrics, strict=True):
        for place, row in _placed([row for row in rows if row.metric == metric], languages):
            axes.plot([place, place], [row.before, row.after], color="#c8ced8", linewidth=1, zorder=1)
            axes.scatter([place], [row.before], s=14, color=BEFORE, zorder=2)
            axes.scatter([place], [row.after], s=14, color=AFTER, zorder=3)
        axes.set_xticks(range(len(languages)), languages)
        axes.set_title(f"{metric} on held-out prompts: grey before, blue after; one pair per seed", fontsize=10)
        _plain(axes)
    return figure


def what_changed(rows: Sequence[Change], metrics: Sequence[str]) -> Figure:
    """One panel per metric: the change of every language and seed, languages in the order of their mean change, so that
    what fell stands at one end and what rose at the other."""
    figure = Figure(figsize=(_WIDTH, _PANEL_HEIGHT * -(-len(metrics) // 2)), layout="constrained")
    panels = figure.subplots(-(-len(metrics) // 2), 2, squeeze=False).flat
    for metric, axes in zip(metrics, panels, strict=False):
        chosen = [row for row in rows if row.metric == metric]
        means = {code: _mean_delta(chosen, code) for code in _languages(chosen)}
        languages = sorted(means, key=lambda code: means[code])
        for place, row in _placed(chosen, languages):
            axes.scatter([place], [row.delta], s=12, color=COLORS[3] if row.delta >= 0 else COLORS[2])
        axes.axhline(0, color="#57606a", linewidth=0.8)
        axes.set_xticks(range(len(languages)), languages, fontsize=7)
        axes.set_title(f"{metric}: after less before", fontsize=9)
        _plain(axes)
    for axes in panels:
        axes.set_visible(False)
    return figure


def staleness(values: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]) -> Figure:
    """One panel per quantity; a line per correction: ``values[quantity][correction]`` are (staleness, value)."""
    figure = Figure(figsize=(_WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(values), squeeze=False)[0]
    for axes, (quantity, corrections) in zip(panels, values.items(), strict=True):
        for number, (correction, pairs) in enumerate(corrections.items()):
            lags = sorted({lag for lag, _ in pairs})
            means = [fmean(value for other, value in pairs if other == lag) for lag in lags]
            axes.plot(lags, means, color=_color(number), linewidth=1.2, label=correction)
            axes.scatter([lag for lag, _ in pairs], [value for _, value in pairs], s=14, color=_color(number))
        axes.set_xlabel("steps that rollouts are behind")
        axes.set_title(quantity, fontsize=9)
        _plain(axes)
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _placed(rows: Sequence[Change], languages: Sequence[str]) -> list[tuple[float, Change]]:
    """Rows with their places on the horizontal axis: seeds side by side within their language."""
    seeds = sorted({row.seed for row in rows})
    step = _SPREAD / max(len(seeds), 1)
    return [
        (languages.index(row.language) + (seeds.index(row.seed) - (len(seeds) - 1) / 2) * step, row)
        for row in rows
        if row.language in languages
    ]


def _languages(rows: Sequence[Change]) -> list[str]:
    """All of them first, then each."""
    codes = sorted({row.language for row in rows} - {ALL})
    return [ALL, *codes] if any(row.language == ALL for row in rows) else codes


def _mean_delta(rows: Sequence[Change], language: str) -> float:
    return fmean(row.delta for row in rows if row.language == language)


def _color(number: int) -> str:
    """The first color is grey, for what is a baseline."""
    return COLORS[1 + number % (len(COLORS) - 1)]


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
