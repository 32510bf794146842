"""`coloq bench memory`, run for a moment."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from service.bench.failure import BenchFailed
from service.bench.memory import ASKS, MemoryOptions, bench_memory


def test_the_front_answers_every_kind_of_request_and_keeps_nothing_of_it(tmp_path: Path) -> None:
    """400 requests of ten kinds are answered as each should be; the memory after each fifth is in the results, and it
    has not grown by as much as 10 MiB. 20,000 are the bench's own default."""
    bench_memory(MemoryOptions(tmp_path, count=400, bound_mib=10.0), Console(quiet=True))
    report = json.loads((tmp_path / "memory.json").read_text())
    assert [row["num_requests"] for row in report["phases"]] == [80, 160, 240, 320, 400]
    assert report["configuration"]["asks"] == [ask.name for ask in ASKS]
    assert all(20 < row["resident_mib"] < 1000 for row in report["phases"])


def test_growth_above_the_bound_fails_the_bench(tmp_path: Path) -> None:
    """A bound that no growth can keep is broken, and what was measured is written all the same."""
    with pytest.raises(BenchFailed, match="must grow by at most -1000 MiB"):
        bench_memory(MemoryOptions(tmp_path, count=50, bound_mib=-1000.0), Console(quiet=True))
    assert len(json.loads((tmp_path / "memory.json").read_text())["phases"]) == 5
