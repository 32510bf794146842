"""Sends one POST to a receiver that nobody here trusts.

Nothing is followed, no proxy of the environment is asked, and of the answer only its status and `Retry-After` are kept:
a body could tell a tenant what an inner service said. The whole exchange has one deadline, however slowly bytes come.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import httpcore
import httpx

from agent.errors import DestinationRefused
from service.webhooks.config import WebhooksConfig
from service.webhooks.destinations import Destination, Destinations

_MAX_READ_BYTES = 16_384
"""Read of an answer's body, so that its connection can be used again; one that says more is closed."""
_KEEPALIVE_S = 10.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one try ended: a status, or the kind of failure that left none."""

    duration_ms: float
    status: int | None = None
    error: str | None = None
    """`timeout`, `connection_failed`, `tls_failed`, `name_not_resolved`, `destination_refused` or `broken_answer`."""
    retry_after: str | None = None
    """The header, as it came."""

    @property
    def delivered(self) -> bool:
        """True when the receiver took the event."""
        return self.status is not None and 200 <= self.status < 300


class Sender(Protocol):
    """Sends one event once."""

    async def send(self, destination: Destination, headers: Mapping[str, str], body: str) -> Outcome:
        """POST ``body``. A failure is an outcome, never an exception."""
        ...


class CheckedNetwork(httpcore.AsyncNetworkBackend):
    """Connects to addresses that were checked a moment before, in the order of the resolver's answer."""

    def __init__(self, destinations: Destinations) -> None:
        self._destinations = destinations
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A stream to the first address that takes the connection.

        Raises:
            DestinationRefused: the name leads to an address that may not be called.
            OSError: the name cannot be resolved.
            httpcore.ConnectError: no address takes the connection.
        """
        failure: httpcore.ConnectError | None = None
        for address in await self._destinations.addresses(host, port):
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore.ConnectError as error:
                failure = error
        raise failure or httpcore.ConnectError(f"no address of {host} takes a connection")

    async def sleep(self, seconds: float) -> None:
        """See the base class."""
        await asyncio.sleep(seconds)


@dataclass(slots=True)
class _Head:
    """What is kept of an answer; nothing until it came."""

    status: int | None = None
    retry_after: str | None = None


class HttpSender:
    """`Sender` over HTTP/1.1."""

    def __init__(self, pool: httpcore.AsyncConnectionPool, timeout_s: float) -> None:
        self._pool = pool
        self._timeout_s = timeout_s

    async def send(self, destination: Destination, headers: Mapping[str, str], body: str) -> Outcome:
        """See Sender."""
        began = time.perf_counter()
        answered = _Head()
        error: str | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._exchange(destination, headers, body, answered)
        except (TimeoutError, httpcore.TimeoutException):
            error = "timeout"
        except DestinationRefused:
            error = "destination_refused"
        except httpcore.ConnectError as failure:
            error = "tls_failed" if _is_about_tls(failure) else "connection_failed"
        except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError):
            error = "broken_answer"
        except OSError:
            error = "name_not_resolved"
        if answered.status is not None:  # what is wrong with the rest of the answer does not undo it
            error = None
        return Outcome((time.perf_counter() - began) * 1000, answered.status, error, answered.retry_after)

    async def _exchange(
        self, destination: Destination, headers: Mapping[str, str], body: str, answered: "_Head"
    ) -> None:
        """Fills ``answered`` in as soon as it is there."""
        content = body.encode()
        url = httpcore.URL(
            scheme=destination.scheme.encode(),
            host=destination.host.encode(),
            port=destination.port,
            target=destination.target.encode(),
        )
        sent = [
            ("Host", destination.authority),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("User-Agent", "Coloq-Webhooks/1"),
            *headers.items(),
        ]
        async with self._pool.stream("POST", url, headers=sent, content=content) as response:
            answered.status, answered.retry_after = response.status, _header(response.headers, b"retry-after")
            num_bytes = 0
            async for part in response.aiter_stream():
                num_bytes += len(part)
                if num_bytes > _MAX_READ_BYTES:
                    break


def _is_about_tls(failure: httpcore.ConnectError) -> bool:
    """httpcore makes its errors of the ones that they stand for."""
    return any(isinstance(origin, ssl.SSLError) for origin in failure.args)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key.lower() == name), None)


@asynccontextmanager
async def open_sender(destinations: Destinations, config: WebhooksConfig) -> AsyncIterator[HttpSender]:
    """A sender with connections of its own, for the length of the block."""
    pool = httpcore.AsyncConnectionPool(
        ssl_context=httpx.create_ssl_context(trust_env=True),
        max_connections=config.concurrency,
        max_keepalive_connections=config.concurrency // 2,
        keepalive_expiry=_KEEPALIVE_S,
        network_backend=CheckedNetwork(destinations),
    )
    async with pool:
        yield HttpSender(pool, config.timeout_s)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a fake receiver was sent."""

    destination: Destination
    headers: Mapping[str, str]
    body: str


@dataclass
class FakeSender:
    """Keeps what it was asked to send; outcomes are taken from ``outcomes`` by turns, then all are 200."""

    outcomes: list[Outcome] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    gate: asyncio.Event | None = None
    """When set, a send waits for it."""

    async def send(self, destination: Destination, headers: Mapping[str, str], body: str) -> Outcome:
        """See Sender."""
        self.sent.append(Sent(destination, headers, body))
        if self.gate is not None:
            await self.gate.wait()
        return self.outcomes.pop(0) if self.outcomes else Outcome(1.0, 200)
