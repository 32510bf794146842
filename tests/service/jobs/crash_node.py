"""A node over a real embedded store, as a process to be killed: HTTP, jobs, store and the supervision of the engine are
the product's own, the engine is a child process that answers without a model.

    python crash_node.py FOLDER

An answer takes a few tens of milliseconds. FOLDER/generations.log gets the request id of each generation that begins
and ends, FOLDER/heard.log the id of each finished job that the node hears of, FOLDER/engines.log the process id of each
engine that is started.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from agent.commission import Commission
from agent.episode import Reply
from agent.ports import Engine, GenerateRequest
from service.config import EngineConfig, JobsConfig, NodeConfig, ServerConfig, StoreConfig
from service.http.fakes import FAKE_TENANT, FakeAuthenticator, FakeContent, FakeMetrics, FakeNode
from service.jobs.records import Job
from service.jobs.store import RedisJobStore
from service.secrets import AdminKey
from service.serve import run_until_told
from service.store import open_store
from service.supervised_engine import SupervisedEngine
from service.telemetry import configure_logging
from tests.service.jobs.crash_engine import CrashEngine

CONFIG = NodeConfig(
    server=ServerConfig(port=0, shutdown_grace_s=1.0),
    # Every kill costs the engine a start and a running job a try; neither may be given up here.
    engine=EngineConfig(max_num_seqs=64, max_restarts=1000),
    jobs=JobsConfig(concurrency=8, lease_s=2.0, max_attempts=1000),
)


def append(path: Path, line: str) -> None:
    """One write per line: lines of a killed process are whole or absent."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


@dataclass
class LoggedContent(FakeContent):
    """The engine's text as it comes, without agents; keeps what it did in a file."""

    engine: Engine = field(kw_only=True)
    log: Path = field(kw_only=True)

    async def write(self, commission: Commission) -> Reply:
        request_id = commission.request_id
        append(self.log, f"begin {request_id}")
        completion = await self.engine.generate(GenerateRequest(request_id, (1,), commission.sampling))
        append(self.log, f"end {request_id}")
        return replace(self._reply(commission.brief, request_id, commission.alternatives.n), text=completion.text)


@dataclass(frozen=True)
class LoggedEvents:
    """A subscriber that keeps whom it heard of in a file."""

    log: Path

    async def finished(self, job: Job) -> None:
        append(self.log, job.id)


@dataclass
class CrashNode(FakeNode):
    """A fake node with what a server needs beside its ports."""

    keys: FakeAuthenticator = field(default_factory=lambda: FakeAuthenticator({"tenant-key": FAKE_TENANT}))
    metrics: FakeMetrics = field(default_factory=FakeMetrics)
    admin: AdminKey = field(default_factory=lambda: AdminKey("sha256:0"))
    gave_up: "asyncio.Future[str]" = field(kw_only=True)


async def nothing_to_prepare() -> None:
    """A fresh engine can answer at once."""


@asynccontextmanager
async def open_engine(folder: Path) -> AsyncIterator[SupervisedEngine]:
    engine = SupervisedEngine(
        CONFIG.engine, lambda: CrashEngine.launch(lambda pid: append(folder / "engines.log", str(pid)))
    )
    await engine.start(nothing_to_prepare)
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def open_node(folder: Path) -> AsyncIterator[CrashNode]:
    async with open_store(StoreConfig(), folder) as store, open_engine(folder) as engine:
        assert store.embedded is not None
        node = CrashNode(
            gave_up=engine.gave_up,
            content=LoggedContent(engine=engine, log=folder / "generations.log"),
            config=CONFIG,
            job_store=RedisJobStore(store, CONFIG.jobs),
            events=LoggedEvents(folder / "heard.log"),
        )
        async with node.jobs.running():
            yield node


def announce(folder: Path, line: str) -> None:
    """Tell the harness where this process answers."""
    if line.startswith("Ready: "):
        temporary = folder / f"ready.{os.getpid()}"
        temporary.write_text(line.removeprefix("Ready: "))
        temporary.replace(folder / "ready")


def main() -> None:
    folder = Path(sys.argv[1])
    configure_logging("warning", "console")
    asyncio.run(run_until_told(CONFIG, partial(open_node, folder), partial(announce, folder)))


if __name__ == "__main__":
    main()
