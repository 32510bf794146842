"""A node with its HTTP server, from start to signal."""

import asyncio
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import pytest

from agent.config import LanguageSettings, TenantSettings
from agent.errors import EngineDead, InvalidConfig, ModelError
from service.config import EngineConfig, NodeConfig, ServerConfig
from service.gpu import Gpu
from service.http.fakes import FakeAuthenticator, FakeContent, FakeMetrics, FakeNode
from service.jobs.records import JobState
from service.secrets import AdminKey
from service.serve import checked_plan, exit_when_overdue, run_until_told
from tests.tiny_model import save_tiny_llama

TENANT = TenantSettings(id="acme", languages={"de": LanguageSettings()})
BRIEF = {"kind": "create", "language": "de", "instructions": "Begrüße uns."}
KEY = {"Authorization": "Bearer tenant-key"}


@dataclass
class ServedNode(FakeNode):
    """A fake node with what a server needs beside its ports."""

    keys: FakeAuthenticator = field(default_factory=lambda: FakeAuthenticator({"tenant-key": TENANT}))
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    admin: AdminKey = field(default_factory=lambda: AdminKey("sha256:0", plain="clq_admin_x"))
    gave_up: "asyncio.Future[str]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Stage:
    """Runs `run_until_told` over a fake node, and keeps what happened in order."""

    def __init__(
        self, *, host: str = "127.0.0.1", port: int = 0, grace_s: float = 5.0, admin: tuple[str, int] | None = None
    ) -> None:
        server = ServerConfig(host=host, port=port, shutdown_grace_s=grace_s)
        if admin is not None:
            server = server.model_copy(update={"admin_host": admin[0], "admin_port": admin[1]})
        self.config = NodeConfig(server=server)
        self.log: list[str] = []
        self.announced: list[str] = []
        self.content = FakeContent()
        self.failure: Exception | None = None
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.ready = asyncio.Event()
        self.node: ServedNode | None = None

    @asynccontextmanager
    async def open_node(self) -> AsyncIterator[ServedNode]:
        self.log.append("starting")
        try:
            await self.may_open.wait()
            if self.failure is not None:
                raise self.failure
            self.node = ServedNode(content=self.content)
            self.log.append("open")
            yield self.node
        finally:
            if self.node is not None:
                await self.node.jobs.close()
            self.log.append("closed")

    def announce(self, line: str) -> None:
        self.announced.append(line)
        if line.startswith("Ready: "):
            self.ready.set()

    def start(self) -> "asyncio.Task[None]":
        return asyncio.create_task(run_until_told(self.config, self.open_node, self.announce))

    async def url(self) -> str:
        await asyncio.wait_for(self.ready.wait(), timeout=5)
        return self.announced[-1].removeprefix("Ready: ")


@asynccontextmanager
async def asked(stage: Stage) -> AsyncIterator[tuple["asyncio.Task[None]", "asyncio.Task[httpx.Response]"]]:
    """A server that was told to stop while it carries a request out: its task, and the one of who asks."""
    running = stage.start()
    url = await stage.url()
    async with httpx.AsyncClient() as client:
        asking = asyncio.create_task(client.post(f"{url}/v1/content", json=BRIEF, headers=KEY))
        await stage.content.started.wait()
        tell()
        yield running, asking
        await asyncio.gather(asking, return_exceptions=True)


def tell(number: signal.Signals = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serves_until_it_is_told_to_stop(number: signal.Signals) -> None:
    """The node opens, answers at the announced address, and is closed after a signal; the port is free again."""
    stage = Stage()
    running = stage.start()
    url = await stage.url()
    async with httpx.AsyncClient() as client:
        assert (await client.post(f"{url}/v1/content", json=BRIEF, headers=KEY)).status_code == 200
        tell(number)
        await asyncio.wait_for(running, timeout=5)
        with pytest.raises(httpx.ConnectError):
            await client.get(f"{url}/healthz")
    assert stage.log == ["starting", "open", "closed"]


async def test_a_thread_that_computes_does_not_hold_the_event_loop_up() -> None:
    """One that hardly lets Python's lock go by itself, as when replies are scored: the loop gets it back in a turn of
    half a millisecond, CPython's are of five."""
    before_s, stop = sys.getswitchinterval(), threading.Event()

    def compute() -> None:
        while not stop.is_set():
            sum(range(100))

    async def late_s() -> float:
        lateness_s = []
        for _ in range(100):
            began_s = time.perf_counter()
            await asyncio.sleep(0.001)
            lateness_s.append(time.perf_counter() - began_s - 0.001)
        return median(lateness_s)

    stage = Stage()
    running = stage.start()
    await stage.url()
    thread = threading.Thread(target=compute)
    thread.start()
    ours_s = await late_s()
    sys.setswitchinterval(before_s)
    cpythons_s = await late_s()
    stop.set()
    thread.join()
    tell()
    await running
    assert ours_s < 0.5 * cpythons_s
    assert sys.getswitchinterval() == before_s


async def test_new_admin_key_is_announced_once() -> None:
    """The first start shows the key that it made, before the line that says where the node is."""
    stage = Stage()
    running = stage.start()
    await stage.url()
    tell()
    await running
    assert stage.announced[0] == "Starting the engine …"
    assert [line for line in stage.announced if "clq_admin_x" in line] == [stage.announced[1]]


async def test_taken_port_is_found_before_anything_starts() -> None:
    """The message names the key to change, and no engine was started for nothing."""
    with taken_port() as port:
        stage = Stage(port=port)
        with pytest.raises(InvalidConfig, match=rf"server\.port: must be free.*127\.0\.0\.1:{port}"):
            await stage.start()
    assert stage.log == []
    assert stage.announced == []


async def test_address_of_another_machine_is_refused() -> None:
    """An address that this machine does not have is a configuration error too."""
    stage = Stage(host="192.0.2.1")  # reserved for documentation by RFC 5737
    with pytest.raises(InvalidConfig, match=r"server\.host: .*192\.0\.2\.1"):
        await stage.start()
    assert stage.log == []


async def test_port_that_is_taken_during_the_start_closes_the_node() -> None:
    """Another process may begin to listen while the engine starts: the node is closed, and the error says so."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        stage = Stage(port=other.getsockname()[1])
        stage.may_open.clear()
        running = stage.start()
        await asyncio.sleep(0.05)
        other.listen()
        stage.may_open.set()
        with pytest.raises(InvalidConfig, match=r"server\.port: must be free"):
            await asyncio.wait_for(running, timeout=5)
    assert stage.log == ["starting", "open", "closed"]
    assert not stage.ready.is_set()


async def test_connections_are_refused_until_the_node_is_open() -> None:
    """A health check during the start fails at once instead of hanging."""
    with taken_port() as port:
        pass
    stage = Stage(port=port)
    stage.may_open.clear()
    running = stage.start()
    await asyncio.sleep(0.05)
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/healthz")
        stage.may_open.set()
        assert (await client.get(f"{await stage.url()}/healthz")).status_code == 200
    tell()
    await running


async def test_signal_during_the_start_ends_it() -> None:
    """What had been started is closed, quietly."""
    stage = Stage()
    stage.may_open.clear()
    running = stage.start()
    await asyncio.sleep(0.05)
    tell(signal.SIGINT)
    await asyncio.wait_for(running, timeout=5)
    assert stage.log == ["starting", "closed"]


async def test_start_that_fails_raises_its_reason() -> None:
    """The engine's reason reaches the operator; nothing stays open."""
    stage = Stage()
    stage.failure = ModelError("vLLM could not start tiny")
    with pytest.raises(ModelError, match="could not start tiny"):
        await stage.start()
    assert stage.log == ["starting", "closed"]


async def test_engine_that_stays_dead_ends_the_node() -> None:
    """The node closes and exits with the engine's reason, for its supervisor to see."""
    stage = Stage()
    running = stage.start()
    await stage.url()
    assert stage.node is not None
    stage.node.gave_up.set_result("the engine died 4 times within 10 minutes")
    with pytest.raises(EngineDead, match="4 times within 10 minutes"):
        await asyncio.wait_for(running, timeout=5)
    assert stage.log == ["starting", "open", "closed"]


async def test_request_in_flight_finishes_after_the_signal() -> None:
    """A signal stops new requests; one that is being answered gets its reply before the node closes."""
    stage = Stage()
    stage.content.delay_s = 0.3
    async with asked(stage) as (running, asking):
        assert (await asking).json()["text"] == "Guten Tag."
    await asyncio.wait_for(running, timeout=5)
    assert stage.log[-1] == "closed"


async def test_request_beyond_the_grace_is_cancelled() -> None:
    """With no grace a request that still runs does not hold the node up, and its generation is stopped."""
    stage = Stage(grace_s=0)
    stage.content.delay_s = 20
    async with asked(stage) as (running, _):
        await asyncio.wait_for(running, timeout=5)
        assert stage.content.cancelled.is_set()


async def test_request_that_does_not_end_in_the_grace_becomes_a_job() -> None:
    """The call is answered 202 before the grace of 0.4 s is over, and its job is left in the store."""
    stage = Stage(grace_s=0.4)
    stage.content.delay_s = 20
    async with asked(stage) as (running, asking):
        response = await asking
        assert response.status_code == 202
        await asyncio.wait_for(running, timeout=5)
    assert stage.node is not None
    job = await stage.node.job_store.get("acme", response.json()["id"])
    assert job is not None
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    assert stage.content.cancelled.is_set()


async def test_stop_that_takes_too_long_is_not_waited_for() -> None:
    """A block that outlasts its limit is reported once; one that ends in time is not."""
    calls: list[str] = []
    with exit_when_overdue(0.05, lambda: calls.append("overdue")):
        await asyncio.sleep(0.2)
    with exit_when_overdue(0.05, lambda: calls.append("again")):
        pass
    await asyncio.sleep(0.1)
    assert calls == ["overdue"]


def test_a_plan_that_fits_is_announced_and_sizes_the_cache(tmp_path: Path) -> None:
    """On a GPU the whole table is said before anything is started; the cache takes what is left of it."""
    said: list[str] = []
    card = Gpu("card", 8 * 2**30, free_bytes=8 * 2**30)
    plan = checked_plan(NodeConfig(), str(save_tiny_llama(tmp_path)), said.append, find_gpu=lambda: card)
    assert said[0].splitlines()[0].endswith(" parameters) on card, 8.0 GiB")
    assert said[0].splitlines()[-1].startswith("The KV cache holds ")
    assert 2**30 < plan.kv_cache_bytes < 8 * 2**30


def test_a_gpu_that_another_program_holds_stops_the_start(tmp_path: Path) -> None:
    """The plan is said first, so that the refusal can be understood; nothing is bound or started by then."""
    said: list[str] = []
    card = Gpu("card", 8 * 2**30, free_bytes=2**30)
    with pytest.raises(InvalidConfig, match=r"only 1\.0 GiB of the GPU's 8\.0 GiB are free"):
        checked_plan(NodeConfig(), str(save_tiny_llama(tmp_path)), said.append, find_gpu=lambda: card)
    assert "that other programs leave free" in said[0]


def test_a_cpus_plan_is_one_line(tmp_path: Path) -> None:
    """Weights, cache and training; whatever the size, it passes."""
    said: list[str] = []
    config = NodeConfig(engine=EngineConfig(kv_cache_gib=1000.0))
    plan = checked_plan(config, str(save_tiny_llama(tmp_path)), said.append, find_gpu=lambda: None)
    assert plan.kv_cache_bytes == 1000 * 2**30
    assert re.fullmatch(
        r"Memory plan in GiB: weights 0\.00, KV cache 1000\.00, training \d\.\d\d; 100\d\.\d\d in all\.", said[0]
    )


async def test_an_address_of_its_own_takes_admin_and_metrics_away_from_tenants() -> None:
    """Each address has its own routes, and both have the probes and the document of what is there."""
    stage = Stage(admin=("127.0.0.1", 0))
    running = stage.start()
    url = await stage.url()
    (admin_url,) = [line.removeprefix("Admin: ") for line in stage.announced if line.startswith("Admin: ")]
    admin_key = {"Authorization": "Bearer admin-key"}
    async with httpx.AsyncClient() as client:
        for base, there, elsewhere in ((url, "/v1/me", "/admin/tenants"), (admin_url, "/admin/tenants", "/v1/me")):
            key = KEY if base == url else admin_key
            assert (await client.get(base + there, headers=key)).status_code == 200
            assert (await client.get(base + elsewhere, headers=admin_key)).status_code == 404
            assert (await client.get(f"{base}/readyz")).status_code == 200
            document = (await client.get(f"{base}/openapi.json")).json()
            assert there in document["paths"]
            assert elsewhere not in document["paths"]
        assert (await client.get(f"{url}/metrics")).status_code == 404
        assert (await client.get(f"{admin_url}/metrics")).status_code == 200
    tell()
    await asyncio.wait_for(running, timeout=5)


async def test_a_taken_admin_port_is_found_before_anything_starts() -> None:
    """The message names the operator's key, not the tenants'."""
    with taken_port() as port:
        stage = Stage(admin=("127.0.0.1", port))
        with pytest.raises(InvalidConfig, match=rf"server\.admin_port: must be free.*127\.0\.0\.1:{port}"):
            await stage.start()
    assert stage.log == []
