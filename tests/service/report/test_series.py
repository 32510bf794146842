"""Series of a run's figures."""

from dataclasses import fields

import pytest

from service.http.fake_tuning import step_report
from service.http.tuning_schema import StepView
from service.report.series import duration_s, series_of
from trainer.records import StepReport


def view(report: StepReport) -> StepView:
    return StepView.model_validate(report)


def test_every_figure_is_a_series() -> None:
    """Scalars by their names, tables by name and key; a value that is no number has no point."""
    series = series_of([view(step_report(1, reward=0.25)), view(step_report(2, reward=float("nan")))])
    assert series["reward_mean"][0] == (1, 0.25)
    assert [step for step, _ in series["loss"]] == [1, 2]
    assert series["parts/language"][0] == (1, 0.25)
    assert series["reward_by_language/de"][0] == (1, 0.25)
    assert "step" not in series


def test_a_field_that_is_added_later_is_a_series() -> None:
    """Also a table of tables; what is no figure is left out."""

    class LaterView(StepView):
        curiosity: float = 2.5
        share: dict[str, dict[str, float]]
        comment: str = "text"
        healthy: bool = True

    series = series_of([LaterView(**view(step_report(3)).model_dump(), share={"kl": {"de": 0.5}})])
    assert series["curiosity"] == [(3, 2.5)]
    assert series["share/kl/de"] == [(3, 0.5)]
    assert not {"comment", "healthy"} & series.keys()


def test_throughput_follows_from_tokens_and_seconds() -> None:
    """2,048 tokens in 1.0 + 0.1 + 0.5 + 0.01 s, of which training took 0.5 s."""
    step = view(step_report(1))
    assert duration_s(step) == pytest.approx(1.61)
    series = series_of([step])
    assert series["tokens_per_s"][0][1] == pytest.approx(2048 / 1.61)
    assert series["train_tokens_per_s"][0] == (1, 4096.0)
    unmeasured = step.model_copy(update={"train_s": 0.0})
    assert "train_tokens_per_s" not in series_of([unmeasured])


def test_every_figure_of_a_step_is_served() -> None:
    """A field that a step's report gains is a field of the API's view of it, and so of the report and of the charts."""
    assert {field.name for field in fields(StepReport)} == set(StepView.model_fields)
