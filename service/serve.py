"""`coloq serve`: a node with its HTTP server, from start to SIGTERM or Ctrl-C.

    bind the port ─► open the node (engine, store) ─► listen ─► serve … ─► finish requests in flight ─► close the node
                                                                           (held calls end or become jobs)
                     a signal ends the start                    a signal, or an engine that stays dead

The port is bound first, so that a taken one is found before the engine's slow start; until the node can answer,
connections are refused.
"""

import asyncio
import errno
import faulthandler
import gc
import math
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import structlog
import uvicorn
import uvloop

from agent.errors import EngineDead, InvalidConfig
from service import engine_environment, models
from service.config import NodeConfig, ServerConfig
from service.config_file import load
from service.gpu import Gpu, engine_gpu
from service.http.app import Surface, create_app
from service.http.ports import Authenticator, NodePorts, RequestMetrics
from service.http.protocol import BoundedConfig
from service.secrets import AdminKey, Secrets
from service.telemetry import configure_logging, settle_loggers

if TYPE_CHECKING:
    from service.memory_plan import MemoryPlan

log = structlog.get_logger(__name__)

_TEARDOWN_S = 30.0
"""Time that stopping may take beside the grace for requests in flight."""
_HELD_SHARE = 0.75
"""Share of the grace after which calls that are still held become jobs: the rest is for storing them and answering."""
_OVERDUE_STATUS = 70
"""Exit status of a node that could not stop in time (EX_SOFTWARE)."""

Announce = Callable[[str], None]
_KEEP_ALIVE_S = 75
_TURN_S = 0.0005
"""How long a thread may keep Python's lock from another: replies are scored in threads of this process, and the event
loop wants the lock back each time that a socket has something. CPython's default is ten times that."""
_DATE_S = 1.0
"""How often the date is renewed that replies carry."""


class ServableNode(NodePorts, Protocol):
    """A running node; service.node.Node is the real one."""

    @property
    def keys(self) -> Authenticator: ...

    @property
    def metrics(self) -> RequestMetrics: ...

    @property
    def admin(self) -> AdminKey: ...

    @property
    def gave_up(self) -> "asyncio.Future[str]":
        """Resolved with the reason when the node cannot go on."""
        ...


OpenNode = Callable[[], AbstractAsyncContextManager[ServableNode]]
OpenModel = Callable[[NodeConfig, str, Secrets, "MemoryPlan"], AbstractAsyncContextManager[ServableNode]]
"""Opens a node with the model of this folder or Hugging Face id."""


@asynccontextmanager
async def _open_node(
    config: NodeConfig, model: str, secrets: Secrets, plan: "MemoryPlan"
) -> AsyncIterator[ServableNode]:
    from service.node import open_node  # imports vLLM, which reads the environment and sets its own logger up

    settle_loggers()
    async with open_node(config, model, secrets, plan) as node:
        yield node


def serve(config_path: Path, announce: Announce, *, open_model: OpenModel = _open_node) -> None:
    """Run a node until it is told to stop; ``announce`` gets the lines that a person needs to see.

    Raises:
        ColoqError: the node could not start, or its engine died too often to be restarted again.
    """
    config = load(config_path)
    secrets = Secrets.from_environment(os.environ)
    configure_logging(config.log_level, config.log_format)
    model = models.resolve(config.engine.model, progress=announce)
    engine_environment.prepare(config.engine)
    plan = checked_plan(config, model, announce)
    uvloop.run(run_until_told(config, partial(open_model, config, model, secrets, plan), announce))


def checked_plan(
    config: NodeConfig, model: str, announce: Announce, *, find_gpu: Callable[[], Gpu | None] = engine_gpu
) -> "MemoryPlan":
    """The node's memory plan, announced. Nothing is allocated.

    Args:
        model: the folder or Hugging Face id behind ``config.engine.model``.
        find_gpu: the engine's; None for a node on the CPU, whose plan always passes.

    Raises:
        InvalidConfig: it does not fit the GPU, or other programs hold too much of it.
    """
    from service.memory_plan import plan_memory  # these import torch, which reads the environment
    from service.model_shape import read_shape
    from service.plan_advice import require_fit
    from service.plan_table import plan_text
    from service.reward_footprint import reward_footprint

    gpu, shape = find_gpu(), read_shape(model)
    judges = reward_footprint(config, find=lambda name: model if name == config.engine.model else models.resolve(name))
    plan = plan_memory(config, shape, gpu, judges=judges)
    announce(plan_text(plan))
    require_fit(config, shape, gpu, plan, judges)
    return plan


def exit_at_once() -> None:
    """End this process without unwinding: engine and store are tied to it and end too. The stacks go to stderr."""
    faulthandler.dump_traceback(all_threads=True)
    for task in asyncio.all_tasks():
        task.print_stack()
    sys.stderr.flush()
    os._exit(_OVERDUE_STATUS)


@contextmanager
def exit_when_overdue(limit_s: float, overdue: Callable[[], None]) -> Generator[None]:
    """Call ``overdue`` when the block takes longer: a node that was told to stop stops."""

    def give_up() -> None:
        log.error("node_stop_overdue", limit_s=limit_s)
        overdue()

    timer = asyncio.get_running_loop().call_later(limit_s, give_up)
    try:
        yield
    finally:
        timer.cancel()


async def run_until_told(
    config: NodeConfig, open_node: OpenNode, announce: Announce, *, overdue: Callable[[], None] = exit_at_once
) -> None:
    """Serve until SIGTERM or SIGINT; one that comes during the start ends the start.

    A stop that takes longer than ``server.shutdown_grace_s`` and half a minute calls ``overdue``.

    Raises:
        InvalidConfig: the address cannot be listened on; nothing was started.
        EngineDead: the node could not go on. Everything is stopped.
        ColoqError: the node could not start.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with AsyncExitStack() as held:
        held.enter_context(_short_turns())
        sockets = await held.enter_async_context(_bound(config.server))
        admin_sockets = await held.enter_async_context(_bound_for_admin(config.server))
        announce("Starting the engine …")
        node_is_up = asyncio.Event()
        serving = asyncio.create_task(_serve(config, open_node, sockets, admin_sockets, announce, node_is_up, told))
        await _first_of(serving, told.wait())
        if not node_is_up.is_set():
            serving.cancel()
        with exit_when_overdue(config.server.shutdown_grace_s + _TEARDOWN_S, overdue):
            if node_is_up.is_set():
                await serving
                return
            with suppress(asyncio.CancelledError):
                await serving


@contextmanager
def _short_turns() -> Generator[None]:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(_TURN_S)
    try:
        yield
    finally:
        sys.setswitchinterval(before_s)


async def _serve(
    config: NodeConfig,
    open_node: OpenNode,
    sockets: Sequence[socket.socket],
    admin_sockets: Sequence[socket.socket],
    announce: Announce,
    node_is_up: asyncio.Event,
    told: asyncio.Event,
) -> None:
    async with open_node() as node:
        node_is_up.set()
        server = Server(_uvicorn_config(node, config, Surface.TENANTS if admin_sockets else Surface.ALL))
        servers = {server: sockets}
        if admin_sockets:
            servers[Server(_uvicorn_config(node, config, Surface.OPERATOR))] = admin_sockets
        listening = asyncio.create_task(_listen(servers))
        gc.collect()
        gc.freeze()  # what is there by now stays, and a full collection need not walk over it while requests wait
        try:
            if node.admin.plain is not None:
                announce(f"Admin key, shown this once (keep it in COLOQ_ADMIN_KEY):\n\n  {node.admin.plain}\n")
            for each in servers:
                await each.is_listening(listening)
            if admin_sockets:
                announce(f"Admin: {_url(admin_sockets[0])}")
            announce(f"Ready: {_url(sockets[0])}")
            await _first_of(listening, told.wait(), node.gave_up)
            log.info("node_stopping", reason=node.gave_up.result() if node.gave_up.done() else "told to")
            node.jobs.release_held(config.server.shutdown_grace_s * _HELD_SHARE)
        finally:
            for each in servers:
                each.stop()
            await listening
        if node.gave_up.done():
            raise EngineDead(node.gave_up.result())


async def _listen(servers: Mapping["Server", Sequence[socket.socket]]) -> None:
    """Serve on all addresses until every server is told to exit; when one fails, the others end with it."""
    tasks = [asyncio.create_task(server.listen(sockets)) for server, sockets in servers.items()]
    try:
        await asyncio.gather(*tasks)
    finally:
        for server in servers:
            server.stop()
        await asyncio.gather(*tasks, return_exceptions=True)


def _uvicorn_config(node: ServableNode, config: NodeConfig, surface: Surface) -> uvicorn.Config:
    return BoundedConfig(
        create_app(node, node.keys, config, node.metrics, surface),
        config.server,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=math.ceil(config.server.shutdown_grace_s),
    )


class Server(uvicorn.Server):
    """uvicorn without its own signal handling: whoever runs it decides when to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    def stop(self) -> None:
        """Take no more connections, finish what is there, and end."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """Renew the date until `stop`. uvicorn's own loop looks ten times a second whether it should exit."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(_DATE_S):
                    await self._told.wait()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets until ``stop``.

        Raises:
            InvalidConfig: another process listens on the port by now.
        """
        try:
            await self.serve(list(sockets))
        except OSError as error:
            host, port = sockets[0].getsockname()[:2]
            raise _unusable(host, port, error) from error

    async def is_listening(self, listening: "asyncio.Task[None]") -> None:
        """Return once requests are taken; raises what ``listening`` raises before that."""
        while not self.started and not listening.done():  # noqa: ASYNC110 - uvicorn sets a flag, no event
            await asyncio.sleep(0.01)
        if listening.done():
            listening.result()


@asynccontextmanager
async def listening(app: Any) -> AsyncIterator[str]:
    """Serve an ASGI application on a free port of 127.0.0.1 for the length of the block; yields its URL."""
    server = Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    # asyncio turns Nagle's algorithm off only on sockets that name TCP, which `socket.create_server` does not: each
    # reply would wait 40 ms for the caller's delayed acknowledgement.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listener]))
        try:
            yield _url(listener)
        finally:
            server.stop()
            await serving


@asynccontextmanager
async def _bound_for_admin(server: ServerConfig) -> AsyncIterator[list[socket.socket]]:
    """Sockets of the operator's own address; none when it has none. Raises as ``_bound`` does."""
    if server.admin_host is None:
        yield []
        return
    own = server.model_copy(update={"host": server.admin_host, "port": server.admin_port})
    async with AsyncExitStack() as stack:
        try:
            sockets = await stack.enter_async_context(_bound(own))
        except InvalidConfig as error:
            raise InvalidConfig(error.field.replace("server.", "server.admin_"), error.message) from error
        yield sockets


@asynccontextmanager
async def _bound(server: ServerConfig) -> AsyncIterator[list[socket.socket]]:
    """Sockets bound to every address of ``server.host``, not yet listening.

    Raises:
        InvalidConfig: the address is taken, is not of this machine, or may not be used.
    """
    loop = asyncio.get_running_loop()
    try:
        binding = await loop.create_server(asyncio.Protocol, server.host, server.port, start_serving=False)
    except OSError as error:
        raise _unusable(server.host, server.port, error) from error
    sockets = [bound.dup() for bound in binding.sockets]
    binding.close()
    try:
        yield sockets
    finally:
        for bound in sockets:
            bound.close()


def _unusable(host: str, port: int, error: OSError) -> InvalidConfig:
    if error.errno == errno.EADDRINUSE:
        return InvalidConfig("server.port", f"must be free, but another process already listens on {host}:{port}")
    return InvalidConfig("server.host", f"must be an address that can be listened on, got {host}:{port} ({error})")


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _first_of(*awaitables: Awaitable[Any]) -> None:
    """Return when the first is done; of the others, those made here from coroutines are cancelled."""
    given = {item for item in awaitables if asyncio.isfuture(item)}
    made = {asyncio.ensure_future(item) for item in awaitables if not asyncio.isfuture(item)}
    try:
        await asyncio.wait(given | made, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in made:
            task.cancel()
