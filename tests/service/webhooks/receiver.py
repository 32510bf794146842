"""A receiver of events on loopback, byte by byte: it can answer what no web framework would."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


def answer(status: int, *headers: str) -> bytes:
    """An answer without a body."""
    return "\r\n".join([f"HTTP/1.1 {status} X", "Content-Length: 0", *headers, "", ""]).encode()


@dataclass
class Receiver:
    """A server that keeps the heads of requests and answers with given bytes."""

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    num_connections: int = 0
    drip_s: float = 0.0
    """Time between two bytes of the answer."""

    @property
    def headers(self) -> list[dict[str, str]]:
        """Headers of each request, by lower-case name."""
        lines = [head.strip().split("\r\n")[1:] for head in self.heads]
        return [{name.lower(): value for name, value in (line.split(": ", 1) for line in item)} for item in lines]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
                self.bodies.append(await reader.readexactly(length))
                await self._reply(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _reply(self, writer: asyncio.StreamWriter) -> None:
        if not self.drip_s:
            writer.write(self.answer)
            await writer.drain()
            return
        for byte in self.answer:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(self.drip_s)


@asynccontextmanager
async def receiving(receiver: Receiver, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[int]:
    """The port on 127.0.0.1 where ``receiver`` listens: ``port``, or a free one."""
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
