"""What a caller may send before it is known, on real connections."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import uvicorn
from fastapi import FastAPI

from agent.config import LanguageSettings, TenantSettings
from service.config import NodeConfig, ServerConfig
from service.http.fakes import FakeAuthenticator, FakeMetrics, FakeNode
from service.http.protocol import BoundedConfig
from service.serve import Server, _bound
from tests.service.http.conftest import BuildApp

BOUNDS = ServerConfig(port=0, max_header_bytes=1024, max_headers=8, header_timeout_s=0.2, body_timeout_s=0.3)
GET = b"GET /healthz HTTP/1.1\r\nHost: node\r\n"
POST = b"POST /v1/content HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\n"


@dataclass
class Answer:
    """A reply as it came, and how long the connection stayed."""

    status: int
    body: bytes
    closed: bool

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


class Caller:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, *parts: bytes, pause_s: float = 0.0) -> None:
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(pause_s)

    async def answer(self) -> Answer | None:
        """The next reply; None when the connection was closed without one."""
        try:
            head = await self._reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
        body = await self._reader.readexactly(int(fields[b"content-length"]))
        closed = fields.get(b"connection") == b"close" and await self._reader.read() == b""
        return Answer(int(head.split(b" ", 2)[1]), body, closed)

    async def close(self) -> None:
        self._writer.close()


@pytest.fixture
def app(build_app: BuildApp) -> FastAPI:
    acme = TenantSettings(id="acme", languages={"de": LanguageSettings()})
    return build_app(FakeNode(), FakeAuthenticator({"k": acme}), NodeConfig(server=BOUNDS), FakeMetrics())


@pytest.fixture
async def caller(app: FastAPI) -> AsyncIterator[Caller]:
    server = Server(BoundedConfig(app, BOUNDS))
    async with _bound(BOUNDS) as sockets:
        serving = asyncio.create_task(server.listen(sockets))
        await server.is_listening(serving)
        caller = Caller(*await asyncio.open_connection(*sockets[0].getsockname()[:2]))
        yield caller
        await caller.close()
        server.should_exit = True
        await serving


async def test_a_request_within_the_bounds_is_answered_and_the_connection_kept(caller: Caller) -> None:
    """Three in a row; between them it may be idle for longer than a head may take."""
    for _ in range(3):
        await caller.send(GET, b"\r\n", pause_s=0.05)
        answer = await caller.answer()
        assert answer is not None
        assert (answer.status, answer.closed) == (200, False)
        await asyncio.sleep(0.25)


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param([GET, b"X-Big: " + b"x" * 1024 + b"\r\n\r\n"], id="one large field"),
        pytest.param([GET, b"X-Big: " + b"x" * 1500], id="a field without an end"),
        pytest.param([b"GET /" + b"x" * 1500], id="a path without an end"),
        pytest.param([GET] + [b"X-%d: 1\r\n" % number for number in range(8)] + [b"\r\n"], id="nine fields"),
        pytest.param([GET[:-2] + b"".join(b"\r\nX-%d: 1" % n for n in range(8)) + b"\r\n\r\n"], id="in one packet"),
    ],
)
async def test_a_head_that_is_too_large_is_431(caller: Caller, sent: list[bytes]) -> None:
    """However it comes, and whether it ends or not; the connection is closed."""
    await caller.send(*sent)
    answer = await caller.answer()
    assert answer is not None
    assert (answer.status, answer.code, answer.closed) == (431, "headers_too_large", True)


async def test_a_large_body_beside_a_small_head_is_no_large_head(caller: Caller) -> None:
    """2,000 bytes of body in the packet of the head are the body's: 422 for what it says, not 431."""
    body = json.dumps({"kind": "create", "language": "de", "tone": "x" * 2000}).encode()
    await caller.send(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    answer = await caller.answer()
    assert answer is not None
    assert answer.status == 422


async def test_a_head_that_does_not_end_is_408(caller: Caller) -> None:
    """0.2 s after the connection was made, though its fourth byte came at 0.15 s."""
    await caller.send(*[GET[i : i + 1] for i in range(4)], pause_s=0.05)
    answer = await asyncio.wait_for(caller.answer(), timeout=2)
    assert answer is not None
    assert (answer.status, answer.code, answer.closed) == (408, "request_timeout", True)


async def test_a_caller_that_says_nothing_is_hung_up_on(caller: Caller) -> None:
    """Without an answer: there was no question."""
    assert await asyncio.wait_for(caller.answer(), timeout=2) is None


async def test_a_body_that_does_not_end_is_408(caller: Caller) -> None:
    """0.3 s after the head, for a caller whose key is known; a stranger gets 401 at once."""
    await caller.send(POST + b"Content-Length: 100\r\n\r\n" + b'{"kind":')
    answer = await asyncio.wait_for(caller.answer(), timeout=2)
    assert answer is not None
    assert (answer.status, answer.code) == (408, "request_timeout")


async def test_a_caller_that_hangs_up_within_its_body_breaks_nothing(caller: Caller, app: FastAPI) -> None:
    """It counts as gone (499), not as a failure of the node."""
    await caller.send(POST + b"Content-Length: 100\r\n\r\n" + b'{"kind":')
    await asyncio.sleep(0.05)
    await caller.close()
    metrics = app.state.parts.metrics
    for _ in range(200):
        await asyncio.sleep(0.01)
        if metrics.observations:
            break
    assert [item.status for item in metrics.observations] == [499]


def test_the_servers_configuration_is_one_of_bounds(app: FastAPI) -> None:
    """No access log, no WebSockets, no lifespan of uvicorn's own."""
    config: uvicorn.Config = BoundedConfig(app, BOUNDS, timeout_keep_alive=75)
    config.load()
    assert (config.timeout_keep_alive, config.ws_protocol_class, config.access_log) == (75, None, False)
