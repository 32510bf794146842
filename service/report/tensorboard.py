"""A run's figures as TensorBoard event files."""

from pathlib import Path

from agent.errors import InvalidInput
from service.http.tuning_schema import RunView
from service.report.page import check_steps
from service.report.series import duration_s, series_of


def write_events(run: RunView, folder: Path) -> Path:
    """Write one event file into ``folder/<run id>``, in place of an earlier report's; returns that folder.

    Scalars have the series' names. Their time is the run's start plus the seconds of its steps so far.

    Raises:
        Conflict: the run has taken no step yet.
        InvalidInput: TensorBoard is not installed.
    """
    check_steps(run)
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InvalidInput(
            "--tensorboard", f'needs TensorBoard, and {error}: pip install "coloq[tensorboard]"'
        ) from error
    target = folder / run.id
    for earlier in target.glob("events.out.tfevents.*"):
        earlier.unlink()
    at_s = {step.step: duration_s(step) for step in run.steps}
    time_s = run.started_at.timestamp()
    for step, seconds in at_s.items():
        time_s += seconds
        at_s[step] = time_s
    with SummaryWriter(str(target)) as writer:
        for name, points in series_of(run.steps).items():
            for step, value in points:
                writer.add_scalar(name, value, step, walltime=at_s[step])
    return target
