"""A measurement's results: rows as they come, one JSON file, charts, a table on the terminal.

The file is written also when a measurement fails midway: minutes on a GPU are not thrown away.
"""

import json
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.bench.machine import Machine
from service.bench.statistics import Ratio, Spread


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
    _began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        """One line of progress."""
        self.console.print(Text(f"[{time.monotonic() - self._began:6.1f} s] {line}"))

    def add(self, group: str, row: object) -> None:
        """Keep a row: a dataclass, a Struct or plain values."""
        self.rows.setdefault(group, []).append(msgspec.to_builtins(row))

    def chart(self, name: str, figure: Figure) -> None:
        """Write a chart."""
        figure.savefig(self.out / f"{self.bench}-{name}.png", format="png", dpi=120)

    @property
    def path(self) -> Path:
        return self.out / f"{self.bench}.json"

    @property
    def log_path(self) -> Path:
        """Where the measured node logs."""
        return self.out / f"{self.bench}-node.log"

    def write(self, failure: str | None = None) -> None:
        """Write what there is."""
        content = {
            "bench": self.bench,
            "command": self.command,
            "began_at": self.began_at.isoformat(timespec="seconds"),
            "duration_s": round(time.monotonic() - self._began, 1),
            "failure": failure,
            "machine": msgspec.to_builtins(Machine.here()),
            "configuration": msgspec.to_builtins(self.configuration, enc_hook=str),
            **self.rows,
        }
        self.path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


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


def percentiles(spread: Spread | None) -> str:
    """`p50 / p99` of a distribution."""
    return "–" if spread is None else f"{spread.p50:.1f} / {spread.p99:.1f}"


def interval(ratio: Ratio | None) -> str:
    """`1.023 (1.010–1.041)`."""
    return "–" if ratio is None else f"{ratio.value:.3f} ({ratio.low:.3f}–{ratio.high:.3f})"
