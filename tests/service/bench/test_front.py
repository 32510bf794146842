"""`coloq bench front`, run for a moment."""

import json
from pathlib import Path

from rich.console import Console

from service.bench.front import FrontOptions, bench_front


def test_the_bench_measures_every_front_without_a_failure(tmp_path: Path) -> None:
    """Each front answers; the log of the logged one has a line for each request, with tenant and key."""
    bench_front(FrontOptions(tmp_path, (1,), rounds=1, warmup_s=0.1, duration_s=0.3), Console(quiet=True))
    report = json.loads((tmp_path / "front.json").read_text())
    assert [row["front"] for row in report["loads"]] == ["plain", "limited", "logged"]
    for row in report["loads"]:
        assert row["summary"]["num_failed"] == 0, row
        assert row["summary"]["num_requests"] > 0
        assert 0 < row["cpu_us"] < 1e6
    lines = [json.loads(line) for line in (tmp_path / "front-node.log").read_text().splitlines()]
    handled = [line for line in lines if line["event"] == "request_handled"]
    assert {(line["tenant"], line["key"], line["status"]) for line in handled} == {("bench", "key_bench", 200)}
    assert len(handled) >= report["loads"][2]["summary"]["num_requests"]
