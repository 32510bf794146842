"""Charts of a run: which there are, and that they are drawn."""

from service.report.charts import Chart, charts_of, draw
from tests.service.report.runs import run_view


def test_known_figures_are_drawn_together() -> None:
    """Reward by language in one chart, phases stacked in another; without replies dropped there is no chart of them."""
    charts = {chart.name: chart for chart in charts_of(run_view().figures)}
    assert list(charts["reward-by-language"].series) == ["de", "pl"]
    assert list(charts["seconds"].series) == ["rollout", "score", "train", "install"]
    assert charts["seconds"].stacked
    assert list(charts["fidelity"].series) == ["de", "pl"]
    assert "dropped" not in charts


def test_what_is_not_known_gets_a_chart_of_its_own() -> None:
    """A table's entries share one; the policy's version is no curve."""
    charts = charts_of({"entropy": [(1, 2.0)], "kl/de": [(1, 0.1)], "kl/pl": [(1, 0.2)], "version": [(1, 1.0)]})
    assert [(chart.name, list(chart.series)) for chart in charts] == [("entropy", ["entropy"]), ("kl", ["de", "pl"])]


def test_every_figure_is_in_one_chart() -> None:
    """None is lost, none is drawn twice."""
    figures = run_view().figures
    drawn = [points for chart in charts_of(figures) for points in chart.series.values()]
    assert len(drawn) == len(figures) - 1  # without the version
    names = [chart.name for chart in charts_of(figures)]
    assert len(names) == len(set(names))


def test_a_chart_is_a_png_also_with_gaps_and_a_single_step() -> None:
    """Stacked bars stand on what is there; the run's marks need no data."""
    run = run_view().run.model_copy(update={"published": [1], "resumed_after": [1]})
    for chart in (
        Chart("a", "A", "s", {"x": [(1, 1.0), (3, 2.0)], "y": [(3, 1.0)]}, stacked=True),
        Chart("b", "B", "", {"x": [(1, 1.0)]}),
    ):
        assert draw(chart, run).startswith(b"\x89PNG")
