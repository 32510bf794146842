"""Small files that are whole, and digests that tell when one is not."""

import json
from pathlib import Path

import pytest

from agent.files import check_digests, digests_of, move_durably, replace_durably, write_json


def test_a_file_that_changed_is_named(tmp_path: Path) -> None:
    """The digests of a folder agree with it until one byte differs."""
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    files = digests_of(tmp_path)
    assert files["a"]["size_bytes"] == 3
    found = {name: {"sha256": str(file["sha256"])} for name, file in files.items()}
    check_digests(tmp_path, found)
    (tmp_path / "b").write_text("twq")
    with pytest.raises(ValueError, match="/b must have sha256"):
        check_digests(tmp_path, found)


def test_a_folder_moves_as_a_whole(tmp_path: Path) -> None:
    """Under its new name alone, with what it holds."""
    (tmp_path / ".partial").mkdir()
    write_json(tmp_path / ".partial" / "a.json", {"b": 1})
    move_durably(tmp_path / ".partial", tmp_path / "done")
    assert [path.name for path in tmp_path.iterdir()] == ["done"]
    assert json.loads((tmp_path / "done" / "a.json").read_text()) == {"b": 1}


def test_a_replaced_file_leaves_nothing_beside_it(tmp_path: Path) -> None:
    """The old text, then the new one."""
    for text in ("old", "new"):
        replace_durably(tmp_path / "latest", text)
        assert (tmp_path / "latest").read_text() == text
    assert [path.name for path in tmp_path.iterdir()] == ["latest"]
