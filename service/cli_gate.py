"""The gate's report on a terminal, for `coloq tune status` and `coloq policies show`."""

from collections.abc import Iterator

from rich.table import Table

from service.http.gate_schema import GateReportView, MetricView
from service.http.tuning_schema import EvaluationView


def gate_lines(evaluation: EvaluationView) -> Iterator[str]:
    """The decision in words: what was rejected and why, what is undetermined, whether the reward rose."""
    for language, reason in evaluation.rejected.items():
        yield f"rejected in {language}: {reason}"
    report = evaluation.report
    if report is None:
        return
    yield f"gate {report.verdict.value}: {sum(report.num_prompts.values())} held-out prompts, exam {report.exam[:12]}"
    for language, reason in report.undetermined.items():
        yield f"undetermined in {language}: {reason}"
    gain = report.improvement
    if gain is not None:
        shown, languages = "shown" if gain.shown else "not shown", ", ".join(gain.languages)
        yield f"rise of the reward in {languages} {shown}: {_signed(gain.difference)}, at least {_signed(gain.low)}"
    for language, moved in (report.drift or {}).items():
        yield f"moved in {language}: {_figure(moved.kl)} nats per token over {moved.num_tokens} tokens"
    yield from report.notes


def gate_table(report: GateReportView) -> Table:
    """Every language and metric."""
    heads = ("language", "metric", "baseline", "candidate", "difference", "interval", "margin", "prompts", "verdict")
    table = Table(*heads, box=None)
    for row in report.comparisons:
        table.add_row(*_cells(row))
    return table


def _cells(row: MetricView) -> tuple[str, ...]:
    return (
        row.language,
        row.metric,
        _figure(row.baseline),
        _figure(row.candidate),
        _signed(row.difference),
        f"{_signed(row.low)} to {_signed(row.high)}",
        "-" if row.margin is None else f"{row.margin:g}",
        str(row.num_prompts),
        "-" if row.verdict is None else row.verdict.value,
    )


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.3f}"
