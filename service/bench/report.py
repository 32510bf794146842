"""A measurement's results: rows as they come, one JSON file, charts, a table on the terminal.

The file is written with every row, and its ``failure`` says so while a measurement goes on: minutes on a GPU are not
thrown away when it fails, or is killed, midway.
"""

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.figure import Figure
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.files import replace_durably
from service.bench.machine import Machine
from service.bench.statistics import Ratio, Spread

NOT_FINISHED = "not finished"
"""The failure of a measurement that goes on, or whose process was killed."""


@dataclass(slots=True)
class Report:
    """Results of one command."""

    bench: str
    out: Path
    console: Console
    configuration: Mapping[str, Any]
    command: str = field(default_factory=lambda: shlex.join(["coloq", *sys.argv[1:]]))
    rows: dict[str, list[Any]] = field(default_factory=dict)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    machine: Machine = field(default_factory=Machine.here)
    _began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        """One line of progress."""
        self.console.print(Text(f"[{time.monotonic() - self._began:6.1f} s] {line}"))

    def add(self, group: str, *rows: object) -> None:
        """Keep rows (dataclasses, Structs, pydantic models or plain values) and write what there is.

        Rows that come in hundreds go in together: each call writes the whole file.
        """
        self.rows.setdefault(group, []).extend(map(_plain, rows))
        self.write(NOT_FINISHED)

    def chart(self, name: str, figure: Figure) -> None:
        """Write a chart."""
        self.out.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out / f"{self.bench}-{name}.png", format="png", dpi=120)

    @property
    def path(self) -> Path:
        return self.out / f"{self.bench}.json"

    @property
    def log_path(self) -> Path:
        """Where the measured node logs."""
        return self.out / f"{self.bench}-node.log"

    def write(self, failure: str | None = None) -> None:
        """Write what there is, into a folder that is made where it is missing. A reader finds a whole file."""
        content = {
            "bench": self.bench,
            "command": self.command,
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "duration_s": round(time.monotonic() - self._began, 1),
            "failure": failure,
            "machine": _plain(self.machine),
            "configuration": _plain(self.configuration),
            **self.rows,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        replace_durably(self.path, json.dumps(content, indent=1) + "\n")


def _plain(value: object) -> Any:
    """A value as JSON has them. What nothing is known of becomes text: a measurement is not thrown away for it."""
    return msgspec.to_builtins(value, str_keys=True, enc_hook=_unknown_to_msgspec)


def _unknown_to_msgspec(value: object) -> object:
    match value:
        case BaseModel():
            return value.model_dump()
        case Integral():  # numpy's scalars
            return int(value)
        case Real():
            return float(value)
    return str(value)


@contextmanager
def written(report: Report) -> Iterator[Report]:
    """Write the report at the end of the block, however it ends."""
    report.out.mkdir(parents=True, exist_ok=True)
    try:
        yield report
    except BaseException as error:
        report.write(failure=f"{type(error).__name__}: {error}")
        raise
    report.write()
    report.say(f"results: {report.path}")


def table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without a frame; the first column is text, the others are figures."""
    made = Table(title=title, title_justify="left", box=None, padding=(0, 1))
    for number, head in enumerate(heads):
        made.add_column(head, justify="right" if number else "left")
    for row in rows:
        made.add_row(*row)
    return made


def percentiles(spread: Spread | None, *, digits: int = 1) -> str:
    """`p50 / p99` of a distribution."""
    return "–" if spread is None else f"{spread.p50:.{digits}f} / {spread.p99:.{digits}f}"


def interval(ratio: Ratio | None) -> str:
    """`1.023 (1.010–1.041)`."""
    return "–" if ratio is None else f"{ratio.value:.3f} ({ratio.low:.3f}–{ratio.high:.3f})"
