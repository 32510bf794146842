"""Method ``full``: whose weights the engine serves, and every change of them.

    a run       begin ──► publish, publish, … ──► switch ──────────► … ──► release
                keeps     each step goes live     the newest one is        what is live but was not
                the last  at once                 the last good now        switched to is rolled back
                good

    no run      ensure ──► switch                 an operator rolls back or forward, or the engine starts

There is one copy of the weights, so every request runs on them: those in flight go on with the new ones.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

import structlog

from agent.completion import BASE_VERSION
from agent.errors import Conflict, EngineDead, PublicationFailed
from trainer.ports import Method, PolicySink, TrainerPort

log = structlog.get_logger(__name__)


class LiveWeights:
    """Changes the live weights, one change at a time. A run that trains them has them to itself."""

    method: Method = "full"

    def __init__(self, trainer: TrainerPort, sink: PolicySink, *, folder_of: Callable[[int], Path]) -> None:
        self._trainer, self._sink = trainer, sink
        self._folder_of = folder_of
        self._live = BASE_VERSION
        self._good = BASE_VERSION
        self._kept: set[int] = set()
        self._run: str | None = None
        self._lock = asyncio.Lock()

    def holds(self, version: int) -> bool:
        """See trainer.publication.Placement.holds: there is one copy of the weights, so it is the active version."""
        return version == self._sink.active_version

    def forget_all(self) -> None:
        """A new engine process serves the base model, keeps nothing, and knows of no run."""
        self._live = self._good = BASE_VERSION
        self._kept.clear()
        self._run = None

    async def ensure(self, version: int) -> None:
        """Make sure that a written version, or the base model, can be switched to; reads it when it is not at hand.

        Raises:
            Conflict: a run trains the live weights.
            PublicationFailed: the folder is missing or damaged.
        """
        async with self._lock:
            self._check_free()
            if version != self._live:
                await self._load(version)

    async def switch(self, version: int) -> None:
        """Serve an ensured version, or settle on the one that a run has published; it is the last good one now.

        Raises:
            Conflict: a run trains the live weights, and this is not what it published.
            PublicationFailed: the weights could not be copied; the version that served still does.
        """
        async with self._lock:
            if version != self._live:
                self._check_free()
                await self._copy(version)
            elif self._sink.active_version != version:
                self._sink.activate(version)
            await self._keep_only(version)
            self._good = version

    async def begin(self, run_id: str) -> int:
        """Give the live weights to a run and keep a copy of them; returns their version.

        Raises:
            Conflict: another run has them.
        """
        async with self._lock:
            self._check_free()
            self._run = run_id
            self._good = self._live
            await self._keep_only(self._live)
            return self._live

    async def publish(self, run_id: str, version: int) -> None:
        """Make the run's newest step live, at once for every request.

        Raises:
            EngineDead: the engine process was replaced since the run began.
            PublicationFailed: the engine refused.
        """
        async with self._lock:
            if self._run != run_id:
                raise EngineDead("the engine process was replaced since the run began")
            self._live = version  # also when the copy fails: what is live then is unknown, and release restores
            self._sink.announce(version)
            stall_ms = await self._trainer.publish_live(version)
            self._sink.activate(version)
            log.info("weights_published", version=version, stall_ms=round(stall_ms, 2))

    async def release(self, run_id: str) -> None:
        """Take the live weights back from a run; what it had published since the last switch is rolled back.

        Does nothing when the engine process was replaced since the run began: the new one serves the last good version.

        Raises:
            PublicationFailed: they could not be rolled back; the run's newest version goes on serving.
        """
        async with self._lock:
            if self._run != run_id:
                return
            self._run = None
            if self._live != self._good:
                log.info("weights_rolled_back", version=self._live, to=self._good)
                await self._load(self._good)
                await self._copy(self._good)

    async def _load(self, version: int) -> None:
        """Keep a version, unless it is kept."""
        if version in self._kept:
            return
        if version == BASE_VERSION:
            await self._trainer.load_base()
        else:
            await self._trainer.load(self._folder_of(version), version)
        self._kept.add(version)

    async def _copy(self, version: int) -> None:
        """Copy a kept version over the live weights."""
        previous, self._live = self._live, version
        self._sink.announce(version)
        try:
            await self._trainer.restore_live(version)
        except PublicationFailed:
            self._live = previous
            self._sink.activate(previous)
            raise
        self._sink.activate(version)

    async def _keep_only(self, version: int) -> None:
        """Forget every other version. Only a run needs a copy of what is live."""
        for other in sorted(self._kept - {version}):
            await self._trainer.forget(other)
            self._kept.discard(other)
        if self._run is not None and version not in self._kept:
            await self._trainer.keep_live(version)
            self._kept.add(version)

    def _check_free(self) -> None:
        if self._run is not None:
            raise Conflict("a tuning run trains the live weights: stop it first", blocking_id=self._run)
