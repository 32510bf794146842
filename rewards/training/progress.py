"""How far a training is: what its process tells, a line at a time, on its standard output."""

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError


@dataclass(frozen=True, slots=True)
class Progress:
    """One optimizer step, done."""

    step: int
    num_steps: int
    loss: float


_PROGRESS = TypeAdapter(Progress)


def progress_line(progress: Progress) -> bytes:
    """The line that tells of a step."""
    return _PROGRESS.dump_json(progress) + b"\n"


def read_progress(line: bytes) -> Progress | None:
    """What a line tells; None when it is something else that a library has printed."""
    try:
        return _PROGRESS.validate_json(line)
    except ValidationError:
        return None
