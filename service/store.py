"""The node's store: Redis or Valkey by URL, or an embedded Valkey. What is kept there is the business of its users.

Keys of a tenant begin with ``t:<tenant>:``, the node's own with ``node:``.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import redis.asyncio
import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError

from agent.errors import StoreError
from service.config import StoreConfig
from service.embedded_valkey import EmbeddedValkey, embedded_valkey
from service.secrets import STORE_PASSWORD

log = structlog.get_logger(__name__)

_MAX_CONNECTIONS = 64
_TIMEOUT_S = 5.0


class Store:
    """An open store. ``redis`` answers in text; wrap its calls in ``store_errors``."""

    def __init__(self, client: Redis, url: str, embedded: EmbeddedValkey | None = None) -> None:
        self.redis = client
        self.url = url
        """Where the store is, for logs: never with a password."""
        self.embedded = embedded
        """The server that this node runs; None with a store of its own elsewhere."""

    async def ping(self) -> None:
        """Check that the store answers.

        Raises:
            StoreError: it does not.
        """
        with store_errors("answer"):
            await self.redis.ping()

    async def answers(self, within_s: float) -> bool:
        """Whether it answers in that time: a server that hangs would hold a caller as long as the client waits."""
        try:
            async with asyncio.timeout(within_s):
                await self.ping()
        except (StoreError, TimeoutError):
            return False
        return True


class ClosingPool(BlockingConnectionPool):
    """Connections that stay closed once the pool is.

    redis-py's own pool connects again for whoever still asks when it is closed, and so does a connection that was in
    use then: a task that ends a moment later than its store would leave it open for good.
    """

    _closed = False

    async def get_connection(self, *args: Any, **options: Any) -> AbstractConnection:
        """A connection that is open. Raises NotConnected after `aclose`."""
        if self._closed:
            raise NotConnected("the node has closed its store")
        connection: AbstractConnection = await super().get_connection(*args, **options)  # type: ignore[no-untyped-call]
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        """Take a connection back."""
        if self._closed:
            await connection.disconnect(nowait=True)
        await super().release(connection)

    async def aclose(self) -> None:
        """Close every connection; one in use is closed again when it comes back."""
        self._closed = True
        await super().aclose()


@contextmanager
def store_errors(purpose: str) -> Iterator[None]:
    """Turn what the client raises into a StoreError: ``the store could not <purpose>: <reason>``."""
    try:
        yield
    except (RedisError, OSError) as error:
        raise StoreError(f"the store could not {purpose}: {str(error) or type(error).__name__}") from error


@asynccontextmanager
async def open_store(config: StoreConfig, data_dir: Path, *, password: str | None = None) -> AsyncIterator[Store]:
    """Connect to ``config.url``, or run an embedded Valkey on ``<data_dir>/store``, for the length of the block.

    ``password`` is for ``config.url`` only.

    Raises:
        StoreError: the store does not answer or refuses the password.
    """
    if config.url is None:
        async with embedded_valkey(data_dir) as server, _connected(f"unix://{server.socket_path}") as client:
            yield Store(client, f"unix://{server.socket_path}", server)
    else:
        async with _connected(config.url, password) as client:
            store = Store(client, config.url)
            try:
                await store.ping()
            except StoreError as error:
                reason = f"{error.__cause__ or error}{_advice(error.__cause__)}"
                raise StoreError(f"the store at {config.url} (store.url) did not answer: {reason}") from error
            log.info("store_connected", url=store.url)
            yield store


def _advice(refusal: BaseException | None) -> str:
    """Where the password comes from, for who has none or a wrong one: servers and redis-py have many errors for it."""
    if any(word in str(refusal).lower() for word in ("auth", "password")):
        return f"; its password comes from {STORE_PASSWORD}, a user's name stands in the URL"
    return ""


@asynccontextmanager
async def _connected(url: str, password: str | None = None) -> AsyncIterator[Redis]:
    pool = ClosingPool.from_url(
        url,
        password=password,
        decode_responses=True,
        # Bytes that are not text must reach the code that reports a corrupt entry, not fail inside the client.
        encoding_errors="replace",
        max_connections=_MAX_CONNECTIONS,
        timeout=_TIMEOUT_S,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
    )
    client = redis.asyncio.Redis(connection_pool=pool)
    try:
        yield client
    finally:
        await client.aclose()
        await pool.aclose()
