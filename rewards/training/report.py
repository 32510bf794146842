"""What a training of a reward model found out, kept as `report.json` in the folder of the version that it made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from agent.errors import ModelError
from rewards.training.comparison import GateVerdict
from rewards.training.held_out import HeldOutReport
from rewards.training.settings import TrainingSettings

REPORT = "report.json"


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """One training, from its pairs to the gate's verdict."""

    settings: TrainingSettings
    num_training: Mapping[str, int]
    """Pairs that it was trained on, by source."""
    num_held_out: Mapping[str, int]
    """Pairs that it was measured on, by source."""
    num_too_long: int
    """Pairs left out because a reply was too long with its prompt."""
    losses: tuple[float, ...]
    """One for each optimizer step."""
    candidate: HeldOutReport
    baseline: HeldOutReport | None
    """The version that it would replace, on the same pairs; None when there was none on this backbone."""
    verdict: GateVerdict


_REPORT = TypeAdapter(TrainingReport)


def write_report(folder: Path, report: TrainingReport) -> None:
    """Put the report into a version's folder; not synced."""
    (folder / REPORT).write_bytes(_REPORT.dump_json(report, indent=2))


def read_report(folder: Path) -> TrainingReport:
    """The report of a version.

    Raises:
        ModelError: there is none that can be read.
    """
    try:
        return _REPORT.validate_json((folder / REPORT).read_bytes())
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"{error.error_count()} fields are wrong"
        raise ModelError(f"reward model {folder.parent.name}/{folder.name} has no readable report: {reason}") from error
