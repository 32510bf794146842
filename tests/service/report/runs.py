"""A run with two steps in two languages, as the admin API shows it."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from service.http.fake_tuning import step_report
from service.http.tuning_schema import RunView
from service.report.series import Points, series_of
from trainer.records import Evaluation, RunRequest, RunState, RunStatus


@dataclass(frozen=True)
class Shown:
    run: RunView
    figures: dict[str, Points]


def run_view() -> Shown:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    steps = tuple(
        replace(
            step_report(step, reward=reward),
            reward_by_language={"de": reward, "pl": reward / 2},
            parts={"fidelity": reward, "length": 1.0},
            parts_by_language={"fidelity": {"de": reward, "pl": 0.5}, "length": {"de": 1.0, "pl": 1.0}},
        )
        for step, reward in ((1, 0.25), (2, 0.75))
    )
    evaluation = Evaluation(2, 0, 0.75, 0.5, {"de": (0.8, 0.6), "pl": (0.7, 0.4)}, {"de": (1.0, 0.9)}, {})
    status = RunStatus(
        "run_1", RunState.SUCCEEDED, RunRequest(("de", "pl"), steps=2), now, now, 2, steps, (2,), evaluation, "<done>"
    )
    return Shown(RunView.of(status), series_of(RunView.of(status).steps))
