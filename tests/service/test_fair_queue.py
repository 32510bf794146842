"""Whose request runs next when the engine is full."""

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable

import pytest

from agent.errors import QueueFull
from service.fair_queue import MEMORY_S, QUANTUM_TOKENS, FairQueue, Share


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


class Hall:
    """A queue and the requests in it. ``started`` is in the order of their turns."""

    def __init__(self, capacity: int, **shares: Share) -> None:
        self.clock = Clock()
        self.queue = FairQueue(lambda: capacity, lambda tenant: shares.get(tenant, Share()), clock=self.clock)
        self.started: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, tenant: str, num_tokens: int = QUANTUM_TOKENS, *, times: int = 1) -> None:
        """Requests named `<tenant>1`, `<tenant>2`, …; each holds its slot until it is ended."""
        for _ in range(times):
            name = f"{tenant}{1 + sum(known.startswith(tenant) for known in self._tasks)}"
            self._ends[name] = asyncio.Event()
            self._tasks[name] = asyncio.create_task(self._hold(name, tenant, num_tokens))
            await settle()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await self._tasks[name]
            await settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.wait({self._tasks[name]})
        await settle()

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def result(self, name: str) -> BaseException | None:
        return self._tasks[name].exception()

    async def _hold(self, name: str, tenant: str, num_tokens: int) -> None:
        async with self.queue.turn(tenant, num_tokens):
            self.started.append(name)
            await self._ends[name].wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_tenant_alone_has_the_whole_engine() -> None:
    """Of four requests in three slots, one waits until another ends."""
    hall = Hall(3)
    await hall.ask("a", times=4)
    assert hall.started == ["a1", "a2", "a3"]
    assert hall.queue.num_waiting == 1
    await hall.end("a2")
    assert hall.started == ["a1", "a2", "a3", "a4"]
    await hall.close()


async def test_tenants_take_turns_however_many_wait() -> None:
    """One slot; a asks six times before b asks twice: after a1 the turns go a, b, a, b, and then a alone."""
    hall = Hall(1)
    await hall.ask("a", times=6)
    await hall.ask("b", times=2)
    for name in ("a1", "a2", "b1", "a3", "b2", "a4", "a5"):
        await hall.end(name)
    assert hall.started == ["a1", "a2", "b1", "a3", "b2", "a4", "a5", "a6"]
    await hall.close()


async def test_turns_are_counted_in_tokens() -> None:
    """a's requests are twice as long as b's: b1 a1 b2 b3 a2 b4 b5 a3, six quanta of a's and five of b's."""
    hall = Hall(1)
    await hall.ask("x")
    await hall.ask("a", 2 * QUANTUM_TOKENS, times=3)
    await hall.ask("b", QUANTUM_TOKENS, times=6)
    for name in ("x1", "b1", "a1", "b2", "b3", "a2", "b4", "b5"):
        await hall.end(name)
    assert hall.started[1:9] == ["b1", "a1", "b2", "b3", "a2", "b4", "b5", "a3"]
    await hall.close()


async def test_weights_share_what_there_is() -> None:
    """a weighs 3 and b 1: of eight turns a gets six."""
    hall = Hall(1, a=Share(weight=3), b=Share(weight=1))
    await hall.ask("x")
    await hall.ask("a", times=8)
    await hall.ask("b", times=8)
    await hall.end("x1")
    for _ in range(7):
        await hall.end(hall.started[-1])
    turns = [name[0] for name in hall.started[1:]]
    assert (turns.count("a"), turns.count("b")) == (6, 2)
    await hall.close()


async def test_room_is_kept_for_who_asked_lately() -> None:
    """b once used two of four slots, so a may have two of them and no more, until b is forgotten."""
    hall = Hall(4)
    await hall.ask("b", times=2)
    await hall.end("b1", "b2")
    await hall.ask("a", times=4)
    assert hall.started[2:] == ["a1", "a2"]
    await hall.ask("b")
    assert hall.started[-1] == "b3"
    await hall.end("b3")
    hall.clock.s = 2 * MEMORY_S + 1
    await hall.end("a1")
    assert hall.started[-2:] == ["a3", "a4"]
    await hall.close()


async def test_no_more_is_kept_than_a_fair_share() -> None:
    """b's peak was four of four; with a beside it half of them is its share."""
    hall = Hall(4)
    await hall.ask("b", times=4)
    await hall.end("b1", "b2", "b3", "b4")
    await hall.ask("a", times=4)
    assert hall.started[4:] == ["a1", "a2"]
    await hall.close()


async def test_a_full_line_is_refused_and_others_are_not() -> None:
    """a may have two in line; its fourth request is told when to come back, and b still gets in line."""
    hall = Hall(1, a=Share(max_queued=2))
    await hall.ask("a", times=4)
    error = hall.result("a4")
    assert isinstance(error, QueueFull)
    assert error.limit == "max_queued"
    assert error.retry_after_s >= 1
    await hall.ask("b")
    assert hall.queue.waiting() == {"a": 2, "b": 1}
    await hall.close()


async def test_who_gives_up_leaves_no_trace() -> None:
    """One that waits leaves the line; one that runs frees its slot for the next."""
    hall = Hall(1)
    await hall.ask("a", times=3)
    await hall.cancel("a2")
    assert hall.queue.num_waiting == 1
    await hall.cancel("a1")
    assert hall.started == ["a1", "a3"]
    await hall.close()
    assert hall.queue.num_waiting == 0


async def test_a_turn_that_comes_with_the_cancellation_is_passed_on() -> None:
    """a2 is admitted and cancelled in one step of the loop: its slot goes to a3."""
    hall = Hall(1)
    await hall.ask("a", times=3)
    hall._ends["a1"].set()
    await asyncio.sleep(0)
    hall._tasks["a2"].cancel()
    await settle()
    assert hall.started == ["a1", "a3"]
    await hall.close()


class Simulation:
    """Poisson arrivals at one engine of equal slots, in simulated time; gives each tenant's latencies in seconds."""

    def __init__(self, capacity: int, service_s: float, seed: int) -> None:
        self._now_s = 0.0
        self._events: list[tuple[float, int, asyncio.Future[None]]] = []
        self._num = 0
        self._service_s = service_s
        self._random = random.Random(seed)
        self.queue = FairQueue(lambda: capacity, lambda _: Share(max_queued=10**6), clock=lambda: self._now_s)
        self.latencies: dict[str, list[float]] = {}

    def sleep(self, duration_s: float) -> "asyncio.Future[None]":
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._num += 1
        heapq.heappush(self._events, (self._now_s + duration_s, self._num, future))
        return future

    async def arrivals(self, tenant: str, rate: float, until_s: float) -> None:
        draw = random.Random(tenant)
        pending = set()
        while self._now_s < until_s:
            await self.sleep(draw.expovariate(rate))
            pending.add(asyncio.create_task(self._request(tenant, draw)))
        await asyncio.gather(*pending)

    async def _request(self, tenant: str, draw: random.Random) -> None:
        asked_s = self._now_s
        duration_s = self._service_s * draw.uniform(0.5, 1.5)
        async with self.queue.turn(tenant, 256):
            await self.sleep(duration_s)
        self.latencies.setdefault(tenant, []).append(self._now_s - asked_s)

    async def run(self, *loads: Callable[[], Awaitable[None]]) -> None:
        tasks = {asyncio.ensure_future(load()) for load in loads}
        while tasks:
            for _ in range(4):
                await asyncio.sleep(0)
            tasks = {task for task in tasks if not task.done()}
            if tasks and self._events:
                self._now_s, _, future = heapq.heappop(self._events)
                future.set_result(None)


def p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


async def simulated_p99(*, flood: bool) -> tuple[float, dict[str, int]]:
    """b's p99 at 8 requests a second of 1 s each in 32 slots, beside a's ten times as many or alone."""
    hall = Simulation(capacity=32, service_s=1.0, seed=0)
    loads = [lambda: hall.arrivals("b", 8.0, 120.0)]
    if flood:
        loads.append(lambda: hall.arrivals("a", 80.0, 120.0))
    await hall.run(*loads)
    return p99(hall.latencies["b"]), {tenant: len(values) for tenant, values in hall.latencies.items()}


@pytest.mark.timeout(120)
async def test_a_flood_does_not_move_another_tenants_p99_by_a_tenth() -> None:
    """a asks ten times as often as b, and 2.75 times as often as the engine can answer; b hardly notices."""
    alone_s, _ = await simulated_p99(flood=False)
    beside_s, counts = await simulated_p99(flood=True)
    assert counts["a"] > 9 * counts["b"] > 9 * 800
    assert beside_s / alone_s < 1.10, (alone_s, beside_s)
