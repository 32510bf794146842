"""`coloq bench memory`: whether the front's memory stays flat over many requests of every kind.

    this process ──loopback──► service.bench.stored_node (child): HTTP ─► agents ─► scripted engine
    phases of equal length, all answered ─► resident memory of the child ─► next phase

The store is a process of its own, so what jobs and journal keep there does not count.
"""

import asyncio
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from service.bench.failure import BenchFailed
from service.bench.http1 import Connections
from service.bench.peers.program import PeerProgram, running_program
from service.bench.report import Report, table, written
from service.bench.stored_node import KEY_NAME, READY_LINE, TENANT
from service.secrets import new_key

NUM_PHASES = 5
NUM_CLIENTS = 8
_SHARED_MEMORY = Path("/dev/shm")
_START_S = 60.0
_POLL_S = 0.05
_CONTENT, _CHAT = "/v1/content", "/v1/chat/completions"
_BRIEF = {"kind": "create", "language": "en", "instructions": "Announce our new bicycle bell.", "max_tokens": 64}
_DIALOGUE = {"model": "coloq", "messages": [{"role": "user", "content": "A slogan, please."}], "max_tokens": 64}
_ONCE = {"X-Idempotency-Mode": "body"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One kind of request."""

    name: str
    path: str
    body: Callable[[int], Mapping[str, Any]]
    """Of the number of the request."""
    status: int = 200
    headers: Mapping[str, str] | None = None
    hangs_up: bool = False
    """The caller leaves once the reply has begun."""

    def answered_by(self, status: int) -> bool:
        """Whether a response is as it should be: a job that is done before its 202 is written is answered with 200."""
        return status == self.status or (self.status, status) == (202, 200)


ASKS = (
    Ask("content", _CONTENT, lambda number: _BRIEF | {"end_user": f"user-{number}"}),
    Ask("two languages", _CONTENT, lambda number: {**_several(_BRIEF), "seed": number}),
    Ask("content stream", _CONTENT, lambda number: _BRIEF | {"stream": True, "seed": number}),
    Ask("chat", _CHAT, lambda number: _DIALOGUE | {"user": f"user-{number}"}),
    Ask("chat stream", _CHAT, lambda number: _DIALOGUE | {"stream": True, "seed": number}),
    Ask("idempotent, new", _CONTENT, lambda number: _BRIEF | {"seed": number}, headers=_ONCE),
    Ask("idempotent, again", _CONTENT, lambda number: _BRIEF | {"seed": 0}, headers=_ONCE),
    Ask("job", _CONTENT, lambda number: _BRIEF | {"seed": number}, 202, {"Prefer": "respond-async"}),
    Ask("refused", _CONTENT, lambda number: _BRIEF | {"language": "xx"}, 422),
    Ask("hung up", _CONTENT, lambda number: _BRIEF | {"stream": True, "seed": number}, hangs_up=True),
)
"""In turn, in equal numbers."""


def _several(brief: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in brief.items() if name != "language"} | {"languages": ["de", "en"]}


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """The front after a phase."""

    num_requests: int
    """Since the start."""
    resident_mib: float
    duration_s: float
    """Of the phase."""


@dataclass(frozen=True, slots=True)
class MemoryOptions:
    """Options of the command line."""

    out: Path
    count: int
    bound_mib: float
    """The bench fails when memory grows by more than this from the end of the first phase to the end of the last."""


def bench_memory(options: MemoryOptions, console: Console) -> None:
    """Measure and print the rows. Call it from the main thread.

    Raises:
        BenchFailed: memory grew by more than the bound, a request was not answered as it should be, or the node did
            not start.
    """
    report = Report("memory", options.out, console, {"options": options, "asks": [ask.name for ask in ASKS]})
    with written(report):
        rows = asyncio.run(_measured(options, report))
        console.print(_table(rows))
        grown_mib = rows[-1].resident_mib - rows[0].resident_mib
        report.say(f"grown by {grown_mib:.1f} MiB from {rows[0].num_requests} to {rows[-1].num_requests} requests")
        if grown_mib > options.bound_mib:
            raise BenchFailed(f"memory must grow by at most {options.bound_mib:g} MiB, got {grown_mib:.1f} MiB")


@contextmanager
def _node_folder(key_hash: str) -> Iterator[Path]:
    """In memory where there is such a place: how fast a disk syncs says nothing about the front's memory."""
    place = _SHARED_MEMORY if os.access(_SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="coloq-bench-", dir=place) as folder:
        Path(folder, KEY_NAME).write_text(key_hash, encoding="utf-8")
        yield Path(folder)


async def _measured(options: MemoryOptions, report: Report) -> list[MemoryRow]:
    key = new_key(TENANT)
    with _node_folder(key.hash) as folder:
        command = [sys.executable, "-P", "-m", "service.bench.stored_node", str(folder)]
        async with running_program(command, log_path=report.log_path) as node:
            crowd = _Crowd(await _url(node), key.plain)
            rows = []
            try:
                for phase in range(1, NUM_PHASES + 1):
                    rows.append(await _phase(crowd, phase * options.count // NUM_PHASES, node.process.pid))
                    report.add("phases", rows[-1])
            finally:
                await crowd.close()
            return rows


async def _phase(crowd: "_Crowd", until: int, pid: int) -> MemoryRow:
    began_s = time.monotonic()
    await crowd.ask_until(until)
    return MemoryRow(until, _resident_mib(pid), time.monotonic() - began_s)


class _Crowd:
    """Clients that send the next request when their last one is answered."""

    def __init__(self, url: str, key: str) -> None:
        self._connections = [
            Connections(url, {"Authorization": f"Bearer {key}", **(ask.headers or {})}) for ask in ASKS
        ]
        self._numbers = itertools.count()
        self._num_sent = 0

    async def ask_until(self, count: int) -> None:
        """Return once ``count`` requests, from the first one on, are answered."""
        async with asyncio.TaskGroup() as clients:
            for _ in range(NUM_CLIENTS):
                clients.create_task(self._ask_on(count))

    async def close(self) -> None:
        for connections in self._connections:
            await connections.close()

    async def _ask_on(self, count: int) -> None:
        while self._num_sent < count:
            self._num_sent += 1
            number = next(self._numbers)
            await self._send(ASKS[number % len(ASKS)], self._connections[number % len(ASKS)], number)

    async def _send(self, ask: Ask, connections: Connections, number: int) -> None:
        try:
            async with connections.post(ask.path, msgspec.json.encode(ask.body(number))) as response:
                if ask.hangs_up:
                    raise _HungUp
                body = await response.body()
        except _HungUp:
            return
        if not ask.answered_by(response.status):
            raise BenchFailed(f"{ask.name} must be answered with {ask.status}, got {response.status} {body[:300]!r}")


class _HungUp(Exception):
    """Leaves a connection that is then closed."""


async def _url(node: PeerProgram) -> str:
    try:
        async with asyncio.timeout(_START_S):
            while node.status is None:
                said = node.log_path.read_text(encoding="utf-8").splitlines()
                if urls := [line.removeprefix(READY_LINE) for line in said if line.startswith(READY_LINE)]:
                    return urls[0]
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        pass
    raise BenchFailed(f"the node must be ready within {_START_S:g} s; its output ends with:\n{node.tail()}")


def _resident_mib(pid: int) -> float:
    num_pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return num_pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _table(rows: list[MemoryRow]) -> Table:
    cells = [(str(row.num_requests), f"{row.resident_mib:.1f}", f"{row.duration_s:.1f}") for row in rows]
    return table("Resident memory of the front", ("requests", "MiB", "s"), cells)
