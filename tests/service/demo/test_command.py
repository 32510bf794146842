"""`coloq demo` from the outside. The whole demo runs in `make demo`; it takes minutes."""

from pathlib import Path

from typer.testing import CliRunner

from service.cli import app
from service.data_dir import locked_data_dir


def test_help_says_what_it_does_and_writes() -> None:
    """The report's place and the seed are options."""
    shown = CliRunner().invoke(app, ["demo", "--help"]).stdout
    for part in ("report.html", "--output", "--seed"):
        assert part in shown


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    """Two would overwrite each other's node; nothing is started."""
    with locked_data_dir(tmp_path):
        result = CliRunner().invoke(app, ["demo", "--output", str(tmp_path)])
    assert result.exit_code == 1
    assert "already uses the data folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["node.lock"]
