"""A node of fakes over a real embedded store, as a process to be killed: HTTP, jobs and store are the product's own.

    python crash_node.py FOLDER

Its content is a fake that takes a few tens of milliseconds and writes the request id of each generation that it begins
and ends into FOLDER/generations.log, and the id of each finished job that it hears of into FOLDER/heard.log.
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from agent.alternatives import ONE, Alternatives
from agent.brief import Brief
from agent.completion import Sampling
from agent.episode import Reply
from agent.ports import Listener
from service.config import JobsConfig, NodeConfig, ServerConfig, StoreConfig
from service.http.fakes import FAKE_TENANT, FakeAuthenticator, FakeContent, FakeMetrics, FakeNode
from service.jobs.records import Job
from service.jobs.store import RedisJobStore
from service.secrets import AdminKey
from service.serve import run_until_told
from service.store import open_store
from service.telemetry import configure_logging

CONFIG = NodeConfig(
    server=ServerConfig(port=0, shutdown_grace_s=1.0),
    # Every kill of a running job costs it a try; none may be given up here.
    jobs=JobsConfig(concurrency=8, lease_s=2.0, max_attempts=1000),
)


def append(path: Path, line: str) -> None:
    """One write per line: lines of a killed process are whole or absent."""
    with path.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


@dataclass
class LoggedContent(FakeContent):
    """Fake content that keeps what it did in a file."""

    log: Path = field(default=Path())

    async def write(
        self,
        brief: Brief,
        sampling: Sampling,
        *,
        request_id: str,
        alternatives: Alternatives = ONE,
        listener: Listener | None = None,
    ) -> Reply:
        append(self.log, f"begin {request_id}")
        await asyncio.sleep(random.uniform(0.0, 0.06))
        append(self.log, f"end {request_id}")
        return self._reply(brief, request_id, alternatives.n)


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
    gave_up: "asyncio.Future[str]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@asynccontextmanager
async def open_node(folder: Path) -> AsyncIterator[CrashNode]:
    async with open_store(StoreConfig(), folder) as store:
        assert store.embedded is not None
        node = CrashNode(
            content=LoggedContent(log=folder / "generations.log"),
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
