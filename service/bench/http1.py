"""A small HTTP/1.1 client for load generators: kept connections, any number at once, whole or chunked bodies.

It does no more than two servers of known make need. httpx was tried first: with a hundred clients in a closed loop it
measured itself and not the server.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

_REUSE_WITHIN_S = 3.0
"""Servers close connections that were idle for longer (uvicorn: 5 s), and a request must not race with that."""
_LONGEST_LINE_BYTES = 2**20


class BadReply(Exception):
    """What came is not HTTP/1.1 as this client knows it."""


@dataclass(slots=True)
class _Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_s: float


@dataclass(slots=True)
class Response:
    """A reply whose head has come; the body is read through ``chunks`` once."""

    status: int
    headers: Mapping[str, str]
    _reader: asyncio.StreamReader

    async def body(self) -> bytes:
        """The whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body's parts as they come."""
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            yield await self._reader.readexactly(int(self.headers.get("content-length", "0")))
            return
        while size := int(await self._reader.readline(), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()


class Connections:
    """Connections to one server, ``http://`` only. Not thread-safe."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or parts.hostname is None:
            raise ValueError(f"url must be http://host[:port], got {url}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._head = "".join(
            f"{name}: {value}\r\n"
            for name, value in {"Host": parts.netloc, "Content-Type": "application/json", **headers}.items()
        )
        self._idle: list[_Connection] = []

    @asynccontextmanager
    async def post(self, path: str, body: bytes) -> AsyncIterator[Response]:
        """Send a request and yield the reply once its head is there. Read the body inside the block.

        Raises:
            OSError: no connection, or it broke.
            EOFError: the server closed it within a reply.
            BadReply: the reply's head makes no sense.
        """
        connection = self._take() or await self._open()
        try:
            request = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n".encode() + body
            connection.writer.write(request)
            response = await _head(connection.reader)
            yield response
        except BaseException:
            connection.writer.close()
            raise
        if response.headers.get("connection", "").lower() == "close":
            connection.writer.close()
        else:
            connection.used_s = time.monotonic()
            self._idle.append(connection)

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            writer = self._idle.pop().writer
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    def _take(self) -> _Connection | None:
        """The connection that was used last, if it can still be."""
        oldest_s = time.monotonic() - _REUSE_WITHIN_S
        while self._idle:
            connection = self._idle.pop()
            if connection.used_s >= oldest_s and not connection.reader.at_eof():
                return connection
            connection.writer.close()
        return None

    async def _open(self) -> _Connection:
        reader, writer = await asyncio.open_connection(self._host, self._port, limit=_LONGEST_LINE_BYTES)
        return _Connection(reader, writer, time.monotonic())


async def _head(reader: asyncio.StreamReader) -> Response:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    try:
        status = int(lines[0].split(" ", 2)[1])
        fields = [line.split(":", 1) for line in lines[1:] if line]
        return Response(status, {name.lower(): value.strip() for name, value in fields}, reader)
    except (ValueError, IndexError) as error:
        raise BadReply(f"a reply must begin with a status line and header fields, got {lines[0]!r}") from error
