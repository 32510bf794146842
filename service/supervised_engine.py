"""The engine as the rest of the node sees it: it survives the death of its process.

    request ──► slots ──► engine process ──► completion
                  ▲            │ dies
                  └── retry ◄──┴──► restart ──► on_start (installs the active policy) ──► ready

A live request in flight when the process dies waits for the next one and runs again, unless a part of it was sent.
Rollouts fail instead, and with them the tuning run. Tracks which adapter runs where, so that a slot is freed only when
drained; which version a request runs on is service.versions'.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any, Protocol

import structlog

from agent.completion import Completion
from agent.errors import EngineDead
from agent.ports import Delta, GenerateRequest, Priority
from service.config import EngineConfig
from service.slo import LiveRequest
from service.slots import Capacity, Slot, SlotPool
from service.versions import AdapterVersions, Versions

log = structlog.get_logger(__name__)

_RESTART_WINDOW_S = 600.0


class EngineFacts(Protocol):
    """What the node needs to know of a running engine."""

    @property
    def kv_cache_tokens(self) -> int: ...


class EngineProcess(Protocol):
    """One engine process, from its launch to its end; service.engine.VllmEngine is the real one."""

    @property
    def facts(self) -> EngineFacts: ...

    @property
    def alive(self) -> bool: ...

    async def died(self) -> None:
        """Return when the process is gone."""
        ...

    async def stop(self) -> None:
        """End the process and wait for it. Once it is gone, nothing happens."""
        ...

    async def sample(self, request: GenerateRequest, version: int) -> Completion:
        """Sample one completion of an installed version. Raises EngineError, EngineDead among them."""
        ...

    async def call(self, method: str, *args: Any) -> Any:
        """Call a worker method between two engine steps. Raises EngineError, EngineDead among them."""
        ...

    async def answered(self, ticket: int, within_s: float) -> None:
        """Return when the learner's answer is there, or after ``within_s``. Raises EngineDead."""
        ...


Launch = Callable[[], Awaitable[EngineProcess]]


class SupervisedEngine:
    """Implements agent.ports.Engine and trainer.ports.PolicySink over engine processes that come and go."""

    def __init__(
        self,
        config: EngineConfig,
        launch: Launch,
        *,
        versions: Versions | None = None,
        on_restart: Callable[[], None] = lambda: None,
        on_live: Callable[[LiveRequest], None] = lambda request: None,
    ) -> None:
        """Arrange an engine; ``start`` launches it.

        Args:
            versions: those of method ``adapter`` when None.
            on_live: hears of every live request that finished and was measured.
        """
        self._config = config
        self._launch = launch
        self._on_restart = on_restart
        self._on_live = on_live
        self._engine: EngineProcess | None = None
        self._ready = asyncio.Event()
        self._slots: SlotPool | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._on_start: Callable[[], Awaitable[None]] | None = None
        self._versions = versions or AdapterVersions()
        self._running: Counter[int] = Counter()
        self._drained = asyncio.Condition()
        self._deaths: deque[float] = deque()
        self.state = "starting"
        self.num_restarts = 0
        self.gave_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Resolved with the reason when the engine died too often; the node then exits."""

    @property
    def active_version(self) -> int:
        return self._versions.active

    @property
    def slots(self) -> SlotPool:
        if self._slots is None:
            raise EngineDead("the engine has not started yet")
        return self._slots

    async def start(self, on_start: Callable[[], Awaitable[None]]) -> None:
        """Launch the first engine; ``on_start`` prepares each one (installs policies) before traffic reaches it."""
        self._on_start = on_start
        await self._launch_and_prepare()
        self._supervisor = asyncio.create_task(self._supervise(), name="engine-supervisor")

    async def stop(self) -> None:
        """End the engine process. Requests that still run fail with EngineDead."""
        if self._supervisor is not None:
            await _settled(self._supervisor)
        self._ready.clear()
        self._end("the node is stopping")
        if self._engine is not None:
            await self._engine.stop()

    async def generate(self, request: GenerateRequest) -> Completion:
        """See agent.ports.Engine. Live requests survive one death of the engine process while nothing was heard of
        them."""
        if request.priority is Priority.LIVE:
            return await self._generate_live(request)
        return await self._generate_rollout(request)

    async def call(self, method: str, *args: Any) -> Any:
        """Call a worker method; see VllmEngine.call."""
        return await self._current().call(method, *args)

    async def answered(self, ticket: int, within_s: float) -> None:
        """See VllmEngine.answered."""
        await self._current().answered(ticket, within_s)

    def announce(self, version: int) -> None:
        """See trainer.ports.PolicySink.announce."""
        self._versions.announce(version)

    def activate(self, version: int) -> None:
        """New live requests run on ``version`` from now on."""
        self._versions.activate(version)

    async def drained(self, version: int) -> None:
        """Return once no request runs on the adapter of ``version``."""
        async with self._drained:
            await self._drained.wait_for(lambda: self._running[version] == 0)

    async def _generate_live(self, request: GenerateRequest) -> Completion:
        with self.slots.live(_tokens(request)):
            await self._until_ready()
            heard: list[Delta] = []
            try:
                return await self._sample_live(_noting(request, heard))
            except EngineDead:
                if heard:  # a second completion would go on with another text than was sent
                    raise
                log.warning("request_retried_after_engine_death")
            await self._until_ready()
            return await self._sample_live(request)

    async def _sample_live(self, request: GenerateRequest) -> Completion:
        started_s = time.monotonic()
        completion = await self._sample(request)
        if completion.timing is not None:
            self._on_live(LiveRequest(started_s, time.monotonic(), completion.timing))
        return completion

    async def _until_ready(self) -> None:
        """Return when an engine can take requests. Raises EngineDead when there will be none."""
        if self._engine is not None and not self._engine.alive:
            self._ready.clear()
        if self._ready.is_set():
            return
        ready = asyncio.ensure_future(self._ready.wait())
        waiting: set[asyncio.Future[Any]] = {ready, self.gave_up}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await _settled(ready)
        if self.gave_up.done():
            raise EngineDead(self.gave_up.result())

    async def _generate_rollout(self, request: GenerateRequest) -> Completion:
        while True:
            async with self.slots.rollout(_tokens(request)) as slot:
                completion = await self._sample_unless_preempted(request, slot)
            if completion is not None:
                return completion

    async def _sample_unless_preempted(self, request: GenerateRequest, slot: Slot) -> Completion | None:
        """The completion, or None when a live request took the slot."""
        sampling = asyncio.ensure_future(self._sample(request))
        preemption = asyncio.ensure_future(slot.preempted.wait())
        waiting: set[asyncio.Future[Any]] = {sampling, preemption}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return sampling.result() if sampling.done() else None
        finally:
            async with AsyncExitStack() as stack:
                for task in (sampling, preemption):
                    stack.push_async_callback(_settled, task)

    async def _sample(self, request: GenerateRequest) -> Completion:
        versioned = self._versions.start(request)
        self._running[versioned.adapter] += 1
        try:
            return versioned.label(await self._current().sample(versioned.request, versioned.adapter))
        finally:
            self._running[versioned.adapter] -= 1
            if self._running[versioned.adapter] == 0:
                async with self._drained:
                    self._drained.notify_all()

    def _current(self) -> EngineProcess:
        if self._engine is None or not self._engine.alive:
            raise EngineDead("the engine process is not running")
        return self._engine

    async def _launch_and_prepare(self) -> None:
        engine = await self._launch()
        self._engine = engine
        if self._slots is None:
            self._slots = _slot_pool(self._config, engine.facts)
        if self._on_start is not None:
            await self._on_start()
        self.state = "ready"
        self._ready.set()

    async def _supervise(self) -> None:
        while True:
            await self._current_or_last().died()
            self._ready.clear()
            self.state = "restarting"
            log.error("engine_died")  # here, since a request may hear of it before the process's own watch does
            if self._dies_too_often():
                self._give_up(f"the engine died {len(self._deaths)} times within {_RESTART_WINDOW_S / 60:.0f} minutes")
                return
            try:
                await self._restart()
            except EngineDead:
                log.warning("engine_died_while_starting")
            except Exception as error:  # noqa: BLE001 - whatever stands in the way, the node must hear of it and exit
                self._give_up(f"the engine could not be started again: {error}")
                return

    async def _restart(self) -> None:
        """Raises EngineDead when the new engine died at once, and whatever launching and preparing it raise."""
        started = time.perf_counter()
        await self._current_or_last().stop()
        await self._launch_and_prepare()
        self.num_restarts += 1
        self._on_restart()
        log.info("engine_restarted", duration_s=round(time.perf_counter() - started, 1))

    def _current_or_last(self) -> EngineProcess:
        if self._engine is None:
            raise EngineDead("the engine has not started yet")
        return self._engine

    def _dies_too_often(self) -> bool:
        """Count one more death."""
        now = time.monotonic()
        while self._deaths and now - self._deaths[0] > _RESTART_WINDOW_S:
            self._deaths.popleft()
        self._deaths.append(now)
        return len(self._deaths) > self._config.max_restarts

    def _give_up(self, reason: str) -> None:
        log.error("engine_given_up", reason=reason)
        self._end(reason)

    def _end(self, reason: str) -> None:
        """Whoever waits for an engine gets ``reason`` instead."""
        self.state = "stopped"
        if not self.gave_up.done():
            self.gave_up.set_result(reason)


def _slot_pool(config: EngineConfig, facts: EngineFacts) -> SlotPool:
    """Rollouts leave ``live_reserve`` sequences of full length free, or half of the cache where that is less."""
    reserve_tokens = min(config.live_reserve * config.max_model_len, facts.kv_cache_tokens // 2)
    return SlotPool(Capacity(config.max_num_seqs, facts.kv_cache_tokens), Capacity(config.live_reserve, reserve_tokens))


def _tokens(request: GenerateRequest) -> int:
    return len(request.prompt_token_ids) + request.sampling.max_tokens


def _noting(request: GenerateRequest, heard: list[Delta]) -> GenerateRequest:
    """The request, whose first delta is also put into ``heard``."""
    listener = request.listener
    if listener is None:
        return request

    def note(delta: Delta) -> None:
        if not heard:
            heard.append(delta)
        listener(delta)

    return replace(request, listener=note)


async def _settled(task: "asyncio.Future[Any]") -> None:
    """Cancel and wait, so that the engine hears of the abort before the slot is given on."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # asked for, so that asyncio does not report it as never retrieved
