"""`coloq rewards export` against a served app of fakes."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from agent.brief import Brief, Kind
from agent.errors import StoreError
from rewards.preference import PairSource, PreferencePair
from service.cli import app
from service.config import NodeConfig
from service.http.app import create_app
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode, served

BRIEF = Brief("acme", Kind.CREATE, "de", instructions="Eine Klingel.")


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNode]:
    """A served node with three pairs."""
    node = FakeNode()
    node.pairs.all = [PreferencePair(f"p{n}", BRIEF, "Zażółć.", "Nein.", PairSource.EDIT) for n in range(3)]
    web = create_app(node, FakeAuthenticator({}, "admin-key"), NodeConfig(), FakeMetrics())
    monkeypatch.setenv("COLOQ_ADMIN_KEY", "admin-key")
    with capture_logs(), served(web) as url:
        monkeypatch.setenv("COLOQ_URL", url)
        yield node


def export(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["rewards", "export", "--language", *arguments])


def test_pairs_are_written_to_a_file_or_shown(node: FakeNode, tmp_path: Path) -> None:
    """The same lines; what the file held before is gone, and nothing is left beside it."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("old\n" * 10)
    result = export("de", "--out", str(file))
    assert (result.exit_code, result.stdout) == (0, f"3 pairs in {file}\n")
    assert [json.loads(line)["id"] for line in file.read_text("utf-8").splitlines()] == ["p0", "p1", "p2"]
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.jsonl"]
    assert export("de").stdout_bytes == file.read_bytes()


def test_a_file_is_left_as_it_was_when_the_node_refuses(
    node: FakeNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The problem is told: a lost store, a language that is none, no node, no place to write."""
    file = tmp_path / "pairs.jsonl"
    file.write_text("old\n")
    node.pairs.failure = StoreError("gone")
    assert "503 store_unavailable" in export("de", "--out", str(file)).stderr
    node.pairs.failure = None
    result = export("german", "--out", str(file))
    assert (result.exit_code, "language must match" in result.stderr) == (1, True)
    assert "cannot be written: No such file" in export("de", "--out", str(tmp_path / "none" / "x")).stderr
    monkeypatch.setenv("COLOQ_URL", "http://127.0.0.1:9")
    assert "no node answers" in export("de", "--out", str(file)).stderr
    assert file.read_text() == "old\n"
