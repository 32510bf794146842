"""`coloq bench flood` against a real node on the CPU."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.bench.flood import PHASES
from service.bench.shape import find_shape, write_model
from service.cli import app


@pytest.mark.engine
def test_a_quick_run_measures_every_phase(tmp_path: Path) -> None:
    """The tenant is answered in each of them, the neighbour in two; both ratios of the 99th percentile are there."""
    out, work = tmp_path / "out", tmp_path / "work"
    write_model(find_shape("tiny"), work / "models" / "tiny-seed0")
    result = CliRunner().invoke(app, ["bench", "flood", "--quick", "--out", str(out), "--work", str(work)])
    assert result.exit_code == 0, result.output
    content = json.loads((out / "flood.json").read_text())
    assert content["failure"] is None
    rows = content["phases"]
    assert tuple(row["phase"] for row in rows) == PHASES
    assert [row["neighbour"] is not None for row in rows] == [False, True, True]
    for row in rows:
        assert (row["tenant"]["num_failed"], row["tenant"]["num_short"]) == (0, 0)
        assert row["tenant"]["num_requests"] > 0
    assert [verdict["over"] for verdict in content["verdict"]] == ["alone", "shared"]
    assert all(verdict["p99"]["value"] > 0 for verdict in content["verdict"])
