"""A run's report as one HTML page that needs nothing else, beside its charts as PNG files."""

import base64
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from agent.errors import Conflict
from service.http.tuning_schema import RunView
from service.report.charts import Chart, charts_of, draw
from service.report.series import duration_s, series_of

PAGE = "report.html"


@dataclass(frozen=True, slots=True)
class _Drawn:
    chart: Chart
    url: str
    """The PNG itself, as a data URL."""


def write_report(run: RunView, folder: Path) -> Path:
    """Write the page and a PNG for each chart; returns the page's path.

    Raises:
        Conflict: the run has taken no step yet.
    """
    check_steps(run)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for chart in charts_of(series_of(run.steps)):
        png = draw(chart, run)
        (folder / f"{chart.name}.png").write_bytes(png)
        drawn.append(_Drawn(chart, f"data:image/png;base64,{base64.b64encode(png).decode()}"))
    page = folder / PAGE
    page.write_text(_render(run, drawn), encoding="utf-8")
    return page


def dump(run: RunView) -> str:
    """The run and the series of its figures, as JSON."""
    content = {"run": run.model_dump(mode="json"), "series": series_of(run.steps)}
    return json.dumps(content, indent=1, ensure_ascii=False)


def check_steps(run: RunView) -> None:
    """Raises Conflict when there is nothing to report on."""
    if not run.steps:
        raise Conflict(f"{run.id} has taken no step that could be reported on; it is {run.state.value}")


def _render(run: RunView, drawn: list[_Drawn]) -> str:
    """Everything that the node said is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = _figure
    template = environment.from_string((files("service.report") / "report.html.j2").read_text(encoding="utf-8"))
    seconds = sum(map(duration_s, run.steps))
    chosen = {key: value for key, value in run.request.model_dump().items() if value not in (None, [])}
    return template.render(run=run, drawn=drawn, seconds=seconds, chosen=chosen)


def _figure(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4g}"
