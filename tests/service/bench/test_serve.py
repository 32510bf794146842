"""`coloq bench serve` against a real node on the CPU."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.bench.shape import find_shape, write_model
from service.cli import app


@pytest.mark.engine
def test_a_quick_run_measures_a_real_node(tmp_path: Path) -> None:
    """Open and closed loop on the tiny shape: nothing fails, and every reply has all of its 8 tokens."""
    out, work = tmp_path / "out", tmp_path / "work"
    write_model(find_shape("tiny"), work / "models" / "tiny-seed0")
    result = CliRunner().invoke(app, ["bench", "serve", "--quick", "--out", str(out), "--work", str(work)])
    assert result.exit_code == 0, result.output
    content = json.loads((out / "serve.json").read_text())
    assert content["failure"] is None
    assert content["configuration"]["options"]["shape"] == "tiny"
    rows = content["loads"]
    assert [(row["system"], row["load"]) for row in rows] == [("coloq", "4 req/s"), ("coloq", "2 clients")]
    for summary in (row["summary"] for row in rows):
        assert summary["num_requests"] > 0
        assert (summary["num_failed"], summary["num_short"]) == (0, 0)
        assert summary["prompt_tokens"] == pytest.approx(64, rel=0.1)
        assert summary["latency_ms"]["p50"] > 0
        assert summary["tokens_per_s"] == pytest.approx(8 * summary["requests_per_s"])
    assert (out / "serve-latency.png").stat().st_size > 1000
