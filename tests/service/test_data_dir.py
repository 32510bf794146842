"""The data folder and its lock."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from agent.errors import StoreError
from service.data_dir import locked_data_dir, write_private


def test_folder_is_made_private(tmp_path: Path) -> None:
    """The folder is made with its parents, and only its owner may look into it."""
    with locked_data_dir(tmp_path / "a" / "b") as folder:
        assert folder.stat().st_mode & 0o777 == 0o700


def test_second_node_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    """While a node uses the folder another process is refused it, told by whom; afterwards it may have it."""
    program = (
        "import sys; from pathlib import Path; from service.data_dir import locked_data_dir\n"
        "with locked_data_dir(Path(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with (
            pytest.raises(StoreError, match=rf"another node \(process {other.pid}\) already uses the data folder"),
            locked_data_dir(tmp_path, wait_s=0.0),
        ):
            raise AssertionError("entered a folder that another node uses")
        # Killed, not asked: the lock does not outlive its process.
        other.kill()
    with locked_data_dir(tmp_path):
        pass


def test_a_full_disk_is_told_with_the_folder(tmp_path: Path) -> None:
    """The lock is taken, and the process's number finds no room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        with (
            pytest.raises(StoreError, match=f"the data folder {tmp_path} cannot be written to: File too large"),
            locked_data_dir(tmp_path),
        ):
            raise AssertionError("entered a folder on a full disk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_private_file_is_replaced_whole(tmp_path: Path) -> None:
    """A private file is readable by its owner alone, replaces the old one, and leaves nothing beside it."""
    write_private(tmp_path / "secret", "one")
    write_private(tmp_path / "secret", "two")
    assert (tmp_path / "secret").read_text() == "two"
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert [item.name for item in tmp_path.iterdir()] == ["secret"]
