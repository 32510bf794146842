"""Every figure of a run's steps as a series over the steps, named as the API names it: `parts/fidelity`, `loss`, …

Nothing is listed here: a field that a step gains is a series, with one for each entry where it holds a table.
"""

from collections.abc import Iterator, Mapping, Sequence

from service.http.tuning_schema import StepView

Points = list[tuple[int, float]]
"""(step, value), steps ascending; a value that was not a finite number has no point."""

PHASES = ("rollout_s", "score_s", "train_s", "install_s")
"""Fields whose sum is a step's duration."""


def series_of(steps: Sequence[StepView]) -> dict[str, Points]:
    """Series by name, in the order in which a step has them; figures that follow from others come last."""
    series: dict[str, Points] = {}
    for step in steps:
        for name, value in (*_figures(step.model_dump(exclude={"step"})), *_derived(step)):
            series.setdefault(name, []).append((step.step, value))
    return series


def duration_s(step: StepView) -> float:
    """Seconds of all phases together."""
    return sum(float(getattr(step, phase)) for phase in PHASES)


def _figures(table: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _figures(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


def _derived(step: StepView) -> Iterator[tuple[str, float]]:
    for name, seconds in (("tokens_per_s", duration_s(step)), ("train_tokens_per_s", step.train_s)):
        if seconds > 0:
            yield name, step.num_tokens / seconds
