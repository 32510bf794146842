"""The store: a real embedded Valkey, and a Redis by URL."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from agent.errors import StoreError
from service.config import StoreConfig
from service.data_dir import acquire_lock
from service.store import Store, open_store, store_errors

HOLDER = """
import asyncio, sys
from pathlib import Path
from service.config import StoreConfig
from service.store import open_store
from service.telemetry import configure_logging

async def main():
    configure_logging("info", "console")
    async with open_store(StoreConfig(), Path(sys.argv[1])) as store:
        await store.redis.set("kept", "value")
        print(store.embedded.pid, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


def ended(data_dir: Path) -> bool:
    """True when the server of a data folder ends within 10 s: it holds its lock as long as it lives."""
    with (data_dir / "store" / "valkey.lock").open() as lock:
        return acquire_lock(lock.fileno(), wait_s=10.0)


async def test_embedded_store_answers_and_listens_on_no_port(store: Store) -> None:
    """The embedded server answers on a socket that only its user may open, and on nothing else."""
    await store.ping()
    assert store.embedded is not None
    assert await store.redis.config_get("port") == {"port": "0"}
    socket_folder = store.embedded.socket_path.parent
    assert socket_folder.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(store.embedded.socket_path)) <= 100


async def test_embedded_store_syncs_before_it_answers(store: Store) -> None:
    """An accepted job must survive a power cut, and the journal and the ledger are in the same file."""
    assert await store.redis.config_get("append*") | {"appenddirname": ""} == {
        "appendonly": "yes",
        "appendfsync": "always",
        "appendfilename": "appendonly.aof",
        "appenddirname": "",
    }


async def test_embedded_store_keeps_data_and_leaves_nothing_running(tmp_path: Path) -> None:
    """What was written is there after a clean stop and start; the stop ends the process and removes its socket."""
    async with open_store(StoreConfig(), tmp_path) as store:
        assert store.embedded is not None
        pid, socket_path = store.embedded.pid, store.embedded.socket_path
        await store.redis.set("kept", "zażółć")
    assert ended(tmp_path)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not socket_path.parent.exists()
    async with open_store(StoreConfig(), tmp_path) as store:
        assert await store.redis.get("kept") == "zażółć"


async def test_long_data_folder_gets_a_short_socket(tmp_path: Path) -> None:
    """A data folder whose path is longer than a socket's may be works all the same."""
    async with open_store(StoreConfig(), tmp_path / ("long" * 30)) as store:
        await store.ping()


async def test_second_server_on_the_same_folder_is_refused(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two servers never write the same files: the second start is refused and names the first one's process."""
    monkeypatch.setattr("service.embedded_valkey.LOCK_WAIT_S", 0.0)
    assert store.embedded is not None
    with pytest.raises(StoreError, match=f"process {store.embedded.pid}"):
        async with open_store(StoreConfig(), tmp_path):
            raise AssertionError("opened a folder that another server uses")
    await store.ping()


async def test_store_that_cannot_start_says_why(tmp_path: Path) -> None:
    """A damaged append-only file is refused with the server's own words, not with a timeout."""
    folder = tmp_path / "store" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.manifest").write_text("this is no manifest\n")
    with pytest.raises(StoreError, match=r"ended with status 1; its log ends with:(\n.*)+AOF"):
        async with open_store(StoreConfig(), tmp_path):
            raise AssertionError("opened a damaged store")


async def test_store_whose_folder_is_a_file_says_so(tmp_path: Path) -> None:
    """A store's error with the path, as for every other store that cannot be had."""
    (tmp_path / "store").write_text("")
    with pytest.raises(StoreError, match=rf"cannot use {tmp_path / 'store'}: File exists"):
        async with open_store(StoreConfig(), tmp_path):
            raise AssertionError("opened a file")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_server_does_not_outlive_a_killed_node(tmp_path: Path) -> None:
    """SIGKILL of the node ends the server too, and what was synced is there for the next start."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        assert int(node.stdout.readline()) > 0
        node.send_signal(signal.SIGKILL)
    assert ended(tmp_path)

    async def read() -> object:
        async with open_store(StoreConfig(), tmp_path) as store:
            return await store.redis.get("kept")

    assert asyncio.run(read()) == "value"


def test_ctrl_c_in_the_terminal_reaches_the_node_only(tmp_path: Path) -> None:
    """Ctrl-C signals the whole foreground group; the server is not in it, so the node ends it itself, last of all."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as node:
        assert node.stdout is not None
        assert node.stderr is not None
        server = int(node.stdout.readline())
        assert os.getsid(server) == server
        os.killpg(node.pid, signal.SIGINT)
        node.wait(timeout=30)
        assert "embedded_store_stopped" in node.stderr.read()
    assert ended(tmp_path)


async def test_a_killed_server_is_started_again(store: Store) -> None:
    """Calls fail as StoreError for a moment; then another process answers at the same address, with all that was
    written. So it goes each time."""
    assert store.embedded is not None
    for value in ("first", "second"):
        await store.redis.set(value, "kept")
        pid = store.embedded.pid
        os.kill(pid, signal.SIGKILL)
        assert await store.embedded.exited() == -signal.SIGKILL
        with pytest.raises(StoreError, match="the store could not answer: "):
            await store.ping()
        await answering(store)
        assert store.embedded.pid != pid
    assert await store.redis.mget("first", "second") == ["kept", "kept"]


async def test_a_server_that_dies_again_and_again_is_given_pauses(store: Store) -> None:
    """On a full disk it ends with each write, after reading all that it holds: the node must not spend itself on that.
    Seven pauses come to 0 + 0.02 + 0.04 + ... + 0.64 = 1.26 seconds, the eighth ends after 2.54."""
    server = store.embedded
    assert server is not None
    num_started = 0
    with capture_logs() as logs:
        until_s = time.monotonic() + 2.4
        os.kill(server.pid, signal.SIGKILL)
        while time.monotonic() < until_s:
            await asyncio.sleep(0.01)
            if [entry["event"] for entry in logs].count("embedded_store_started") > num_started:
                num_started += 1
                os.kill(server.pid, signal.SIGKILL)
    deaths = [entry for entry in logs if entry["event"] == "embedded_store_died"]
    assert 3 <= len(deaths) <= 8
    assert "Ready to accept connections" in deaths[0]["said"]


async def test_a_store_that_hangs_is_not_waited_for(store: Store) -> None:
    """Readiness is asked for by probes that wait a second; the client itself would wait five."""
    assert store.embedded is not None
    assert await store.answers(5.0)
    os.kill(store.embedded.pid, signal.SIGSTOP)
    try:
        started_s = time.monotonic()
        assert not await store.answers(0.2)
        assert time.monotonic() - started_s < 2
    finally:
        os.kill(store.embedded.pid, signal.SIGCONT)
    assert await store.answers(5.0)


async def test_a_stop_while_the_server_is_started_again_leaves_nothing_running(tmp_path: Path) -> None:
    """Whatever the moment."""
    for pause_s in (0.0, 0.005, 0.03):
        async with open_store(StoreConfig(), tmp_path) as store:
            assert store.embedded is not None
            os.kill(store.embedded.pid, signal.SIGKILL)
            await store.embedded.exited()
            await asyncio.sleep(pause_s)
        assert ended(tmp_path)


async def answering(store: Store) -> None:
    async with asyncio.timeout(10):
        while True:
            with suppress(StoreError):
                return await store.ping()
            await asyncio.sleep(0.01)


async def test_store_by_url(store: Store, tmp_path: Path) -> None:
    """A node with `store.url` uses that server and runs none of its own."""
    async with open_store(StoreConfig(url=store.url), tmp_path / "other") as other:
        await other.redis.set("key", "value")
        assert other.embedded is None
    assert await store.redis.get("key") == "value"
    assert not (tmp_path / "other").exists()


async def test_password_is_used_and_a_wrong_one_is_refused(store: Store, tmp_path: Path) -> None:
    """The password goes to the server; without the right one the store is refused and the password is not shown."""
    await store.redis.config_set("requirepass", "hunter2")
    config = StoreConfig(url=store.url)
    async with open_store(config, tmp_path, password="hunter2") as other:
        await other.ping()
        assert "hunter2" not in other.url
    for wrong in ("wrong-one", None):
        with pytest.raises(StoreError) as caught:
            async with open_store(config, tmp_path, password=wrong):
                raise AssertionError("opened with a wrong password")
        assert str(caught.value).startswith(f"the store at {store.url} (store.url) did not answer: ")
        assert "its password comes from COLOQ_STORE_PASSWORD" in str(caught.value)
        assert "wrong-one" not in str(caught.value)


async def test_unreachable_store_is_a_store_error(tmp_path: Path) -> None:
    """A server that is not there is a StoreError at once, no client library's error later; it names key and place."""
    url = f"unix://{tmp_path}/nobody.sock"
    with pytest.raises(
        StoreError, match=rf"the store at {url} \(store\.url\) did not answer: .*No such file"
    ) as caught:
        async with open_store(StoreConfig(url=url), tmp_path):
            raise AssertionError("opened a store that is not there")
    assert "COLOQ_STORE_PASSWORD" not in str(caught.value)


def test_only_the_stores_errors_are_translated() -> None:
    """A defect inside the block is not dressed up as a failing store."""
    with pytest.raises(StoreError, match="the store could not save: nobody home"), store_errors("save"):
        raise ConnectionError("nobody home")
    with pytest.raises(KeyError), store_errors("save"):
        raise KeyError("a defect")


async def test_a_closed_store_leaves_no_connection(store: Store) -> None:
    """A call that is in the middle of a command when its client is closed would connect again to try once more, and a
    call that comes after the close would connect too: the server ends with the connections it had."""
    before = len(await store.redis.client_list())

    async def blocked() -> None:
        with suppress(RedisError):
            await other.redis.blpop(["nothing-comes-here"], timeout=1)

    async with asyncio.timeout(20):
        async with open_store(StoreConfig(url=store.url), Path()) as other:
            waiting = asyncio.create_task(blocked())
            while not any(client["cmd"] == "blpop" for client in await store.redis.client_list()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await waiting
        with pytest.raises(RedisError):
            await other.redis.get("anything")
        while len(await store.redis.client_list()) > before:  # noqa: ASYNC110 - the server tells no event
            await asyncio.sleep(0.01)
