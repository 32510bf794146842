"""Event files are read back by TensorBoard itself."""

import importlib.util
import sys
from pathlib import Path

import pytest

from agent.errors import InvalidInput
from service.report.tensorboard import write_events
from tests.service.report.runs import run_view

with_tensorboard = pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="the optional extra `tensorboard` is not installed"
)


@with_tensorboard
def test_scalars_have_the_series_names_values_and_times(tmp_path: Path) -> None:
    """Two steps of 1.61 s each; writing the report again replaces the file."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = run_view()
    for _ in range(2):
        folder = write_events(shown.run, tmp_path)
    assert len(list(folder.iterdir())) == 1
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == set(shown.figures)
    scalars = events.Scalars("parts_by_language/fidelity/de")
    assert [(scalar.step, scalar.value) for scalar in scalars] == [(1, 0.25), (2, 0.75)]
    started_s = shown.run.started_at.timestamp()
    assert [scalar.wall_time - started_s for scalar in scalars] == pytest.approx([1.61, 3.22], abs=1e-3)


def test_without_tensorboard_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra's name, as pip takes it."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InvalidInput, match=r'--tensorboard: needs TensorBoard, .*: pip install "coloq\[tensorboard\]"'):
        write_events(run_view().run, tmp_path)
