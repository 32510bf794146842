"""`coloq bench front`, run for a moment."""

import json
from pathlib import Path

from rich.console import Console

from service.bench.front import FrontOptions, FrontRow, bench_front, cells_of
from service.bench.load import LoadResult
from service.bench.statistics import summarise


def test_the_bench_measures_every_front_without_a_failure(tmp_path: Path) -> None:
    """Each front answers; the log of the logged one has a line for each request, with tenant and key."""
    bench_front(FrontOptions(tmp_path, (1,), rounds=1, warmup_s=0.1, duration_s=1.5), Console(quiet=True))
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


def test_a_front_that_answers_nothing_in_time_has_a_line_all_the_same() -> None:
    """One request that outlasts the window is no reason to lose the other rows."""
    summary = summarise(
        LoadResult(began_s=0.0, duration_s=0.3, exchanges=[], done_in_window=0, tokens_in_window=0), max_tokens=0
    )
    assert cells_of(FrontRow("plain", 1, "1 client", 0.0, summary)) == ("plain, 1 client, round 1", "0", "–", "0", "0")
