"""The demo's report: one HTML file that needs nothing else, made of the results alone."""

from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from rewards.config import FAULT_WEIGHTS
from service.demo.charts import fidelity_chart, latency_chart, reward_chart
from service.demo.configuration import GATE_PROMPTS, MODEL
from service.demo.results import DemoResults
from service.demo.screen import change, figure, signed


@dataclass(frozen=True, slots=True)
class _Charts:
    """Inline SVG."""

    reward: str
    fidelity: str
    latency: str


def render_report(results: DemoResults) -> str:
    """The whole page. Everything that a model or the node said is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((files("service.demo") / "report.html.j2").read_text(encoding="utf-8"))
    charts = _Charts(
        reward=reward_chart(results.run.steps, results.evaluation),
        fidelity=fidelity_chart(results.evaluation.fidelity),
        latency=latency_chart(results.swap),
    )
    return template.render(
        results=results,
        charts=charts,
        change=change,
        figure=figure,
        signed=signed,
        model=MODEL,
        gate_prompts=GATE_PROMPTS,
        faults=list(FAULT_WEIGHTS),
    )
