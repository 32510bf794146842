"""What a bench has learnt so far, as JSON, charts and Markdown; written anew after every run."""

from collections.abc import Mapping
from dataclasses import asdict
from statistics import fmean

from service.bench.learning import charts, markdown
from service.bench.learning.figures import ALL, METRICS, PARTS, Change, Interval, by_language, changes, paired_change
from service.bench.learning.runs import RunRow
from service.bench.report import Report

_HELD_OUT = ("reward", "fidelity", "gate_fidelity")
_HOW_TO_READ = (
    "Changes are means over the prompts that have a metric before and after; that of the held-out reward has a 95 % "
    "bootstrap interval. Exams of the node sample with the same seeds before and after a run; those of TRL do not."
)
_CHANGED = ("reward", *PARTS, "tokens")
TRL = "trl"


class LearnResults:
    """Rows of one bench."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.rows: list[RunRow] = []

    @property
    def own(self) -> list[RunRow]:
        """The node's runs without deliberate staleness."""
        return [row for row in self.rows if row.system != TRL and row.variant.lag is None]

    @property
    def changes(self) -> list[Change]:
        """Of the node's own runs."""
        return [change for row in self.own for change in _changes(row)]

    def add(self, row: RunRow) -> None:
        """Keep a run, and write everything anew."""
        self.rows.append(row)
        self._report.add("runs", {**asdict(row), "held_out": _figures(row)})
        self._report.add("changes", [asdict(change) for change in _changes(row)])
        self.present()

    def present(self) -> None:
        """Charts and Markdown of what there is."""
        report, own = self._report, self.changes
        curves = {
            "node": [row.points for row in self.own],
            "TRL": [row.points for row in self.rows if row.system == TRL],
        }
        report.chart("curves", charts.reward_curves({name: runs for name, runs in curves.items() if runs}))
        if any(row.steps for row in self.own):
            report.chart("languages", charts.language_curves([_language_rewards(row) for row in self.own]))
        if own:
            report.chart("held-out", charts.before_and_after(own, _HELD_OUT))
            report.chart("changes", charts.what_changed(own, _CHANGED))
        if self._stale:
            report.chart("staleness", charts.staleness(self._staleness()))
        (report.out / "learn.md").write_text(self.text() + "\n", encoding="utf-8")

    def text(self) -> str:
        """The Markdown."""
        report = self._report
        parts = [
            "### Learning",
            f"`{report.command}`",
            _HOW_TO_READ,
            markdown.summary_table(self.rows, dict(enumerate(map(_interval, self.rows)))),
        ]
        if self.changes:
            parts += ["All languages:", markdown.metric_table(self.changes, METRICS)]
            parts += ["By language:", markdown.language_table(self.changes)]
        for number, row in enumerate(self.rows):
            if row.system == TRL and row.after:
                seed = f"TRL, seed {row.variant.seed}:"
                parts += [seed, markdown.metric_table(_changes(self.rows[number]), METRICS)]
        if self._stale:
            lines = [
                (row.variant.lag or 0, row.variant.correction, row.state, _staleness_figures(row))
                for row in self._stale
            ]
            parts += ["Rollouts that are old on purpose:", markdown.staleness_table(lines)]
        return "\n\n".join(parts)

    @property
    def _stale(self) -> list[RunRow]:
        return [row for row in self.rows if row.variant.lag is not None]

    def _staleness(self) -> Mapping[str, Mapping[str, list[tuple[int, float]]]]:
        values: dict[str, dict[str, list[tuple[int, float]]]] = {}
        for row in self._stale:
            for name, value in _staleness_figures(row).items():
                if value is not None:
                    pairs = values.setdefault(name, {}).setdefault(row.variant.correction, [])
                    pairs.append((row.variant.lag or 0, value))
        return values


def _staleness_figures(row: RunRow) -> dict[str, float | None]:
    """Of a run: how its held-out reward changed, and means over its steps of what old rollouts do to a step."""
    change = _interval(row)
    named = {"ESS": "effective_sample_size", "KL to the rollouts": "behaviour_kl", "gradient norm": "grad_norm"}
    return {
        "held-out reward, change": None if change is None else change.mean,
        **{name: _mean_of_steps(row, key) for name, key in named.items()},
    }


def _mean_of_steps(row: RunRow, key: str) -> float | None:
    values = [step[key] for step in row.steps if step[key] is not None]
    return fmean(values) if values else None


def _language_rewards(row: RunRow) -> list[dict[str, float]]:
    """Of each step: the mean reward of each of its languages."""
    return [
        {code: reward for code, reward in step["reward_by_language"].items() if reward is not None}
        for step in row.steps
    ]


def _interval(row: RunRow) -> Interval | None:
    return paired_change(row.before, row.after, "reward")


def _changes(row: RunRow) -> list[Change]:
    return changes(row.variant.seed, row.before, row.after) if row.after else []


def _figures(row: RunRow) -> dict[str, dict[str, dict[str, float]]]:
    return {"before": by_language(row.before), "after": by_language(row.after) if row.after else {ALL: {}}}
