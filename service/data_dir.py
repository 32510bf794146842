"""The node's data folder: made private, and used by one node at a time."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import StoreError
from agent.files import sync

LOCK_NAME = "node.lock"
_POLL_S = 0.05


@contextmanager
def locked_data_dir(path: Path, *, wait_s: float = 2.0) -> Iterator[Path]:
    """Make the folder (mode 0700) and hold its lock for the length of the block.

    Waits up to ``wait_s`` for a node that is just stopping.

    Raises:
        StoreError: another node uses the folder, or it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"the data folder {path} cannot be used: {error.strerror}") from error
    try:
        if not acquire_lock(descriptor, wait_s=wait_s):
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StoreError(
                f"another node (process {holder}) already uses the data folder {path}; "
                "stop it, or give this one a data_dir of its own"
            )
        _sign(descriptor, path)
        yield path
    finally:
        os.close(descriptor)


def _sign(descriptor: int, path: Path) -> None:
    """Tell whoever finds the folder taken by which process. Raises StoreError, on a full disk mostly."""
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        raise StoreError(f"the data folder {path} cannot be written to: {error.strerror}") from error


def acquire_lock(descriptor: int, *, wait_s: float) -> bool:
    """Lock an open file exclusively, blocking for at most ``wait_s``; False when somebody else keeps it."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        else:
            return True


def write_private(path: Path, content: str) -> None:
    """Write a file of mode 0600 so that it is either absent or whole, whatever happens on the way."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)
