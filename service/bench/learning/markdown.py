"""What was learnt as Markdown, ready for a results file: every seed of every language, never a mean alone."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from service.bench.learning.figures import ALL, Change, Interval
from service.bench.learning.runs import RunRow

_LANGUAGE_METRICS = ("reward", "fidelity", "gate_fidelity")
_NOTHING = "–"


def summary_table(rows: Sequence[RunRow], intervals: Mapping[int, Interval | None]) -> str:
    """One line per run; ``intervals`` has the change of the held-out reward by the run's place in ``rows``."""
    lines = [
        (
            row.system,
            row.variant.label,
            row.state,
            str(len(row.points)),
            str(row.points[-1].num_samples) if row.points else _NOTHING,
            f"{row.duration_s:.1f}",
            _ends(row),
            _interval(intervals.get(number)),
            _traffic(row),
        )
        for number, row in enumerate(rows)
    ]
    heads = ("system", "run", "state", "steps", "replies", "s", "training reward", "held-out reward, change", "live")
    return table(heads, lines)


def metric_table(changes: Sequence[Change], metrics: Iterable[str]) -> str:
    """All languages together: each metric with its change by seed."""
    lines = []
    for metric in metrics:
        rows = [row for row in changes if row.metric == metric and row.language == ALL]
        if rows:
            lines.append((metric, _mean(row.before for row in rows), _mean(row.after for row in rows), _deltas(rows)))
    return table(("metric", "before", "after", "change by seed"), lines)


def language_table(changes: Sequence[Change]) -> str:
    """Each language: before, after and the change by seed, of the reward and of both detectors' shares."""
    heads = ["language"]
    for metric in _LANGUAGE_METRICS:
        heads += [f"{metric} before", "after", "change by seed"]
    lines = []
    for language in sorted({row.language for row in changes} - {ALL}):
        cells = [language]
        for metric in _LANGUAGE_METRICS:
            rows = [row for row in changes if row.metric == metric and row.language == language]
            cells += [_mean(row.before for row in rows), _mean(row.after for row in rows), _deltas(rows)]
        lines.append(cells)
    return table(heads, lines)


def staleness_table(lines: Sequence[tuple[int, str, str, Mapping[str, float | None]]]) -> str:
    """One line per run: steps behind, correction, state, and named figures."""
    names = list(lines[0][3])
    cells = [
        (str(lag), correction, state, *(_figure(values[name]) for name in names))
        for lag, correction, state, values in lines
    ]
    return table(("steps behind", "correction", "state", *names), cells)


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    rows = [heads, ["---"] * len(heads), *lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def _ends(row: RunRow) -> str:
    """Means over the first and the last fifth of a run's steps."""
    if not row.points:
        return _NOTHING
    rewards = [point.reward for point in row.points]
    fifth = max(1, len(rewards) // 5)
    return f"{fmean(rewards[:fifth]):.3f} → {fmean(rewards[-fifth:]):.3f}"


def _interval(change: Interval | None) -> str:
    return _NOTHING if change is None else f"{change.mean:+.3f} ({change.low:+.3f} to {change.high:+.3f})"


def _traffic(row: RunRow) -> str:
    if row.traffic is None:
        return _NOTHING
    return f"{row.traffic.num_requests} requests, {row.traffic.num_failed} failed"


def _deltas(rows: Sequence[Change]) -> str:
    return ", ".join(f"{row.delta:+.3f}" for row in sorted(rows, key=lambda row: row.seed)) or _NOTHING


def _mean(values: Iterable[float]) -> str:
    found = list(values)
    return f"{fmean(found):.3f}" if found else _NOTHING


def _figure(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3f}"
