"""The load generator's process: ``python -m service.bench.generator PLAN RESULT``.

    open loop    due times drawn beforehand (Poisson) ─► each request is a task of its own, late ones too
    closed loop  N clients, each sends its next request when its last one is answered

Requests that are due in the warm-up are sent and not recorded. After the window nothing is sent; what is in flight is
waited for.
"""

import asyncio
import gc
import itertools
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from service.bench.client import Client, client_of, connections_to
from service.bench.load import Exchange, LoadPlan, LoadResult, Poisson


def arrival_times(rate: float, horizon_s: float, seed: int) -> Iterator[float]:
    """Times of a Poisson process with ``rate`` events per second, ascending, below ``horizon_s``."""
    draw = random.Random(seed)
    due_s = draw.expovariate(rate)
    while due_s < horizon_s:
        yield due_s
        due_s += draw.expovariate(rate)


class Window:
    """When requests may be sent, and which of them are recorded."""

    def __init__(self, plan: LoadPlan) -> None:
        self.start_s = time.monotonic()
        self.began_s = self.start_s + plan.warmup_s
        self.end_s = self.began_s + plan.duration_s
        self._stop_file = None if plan.stop_file is None else Path(plan.stop_file)

    def open(self) -> bool:
        """False from the window's end on, or from when it was told to stop: that moment is then its end."""
        now_s = time.monotonic()
        if now_s < self.end_s and self._stop_file is not None and self._stop_file.exists():
            self.end_s = max(now_s, self.began_s)
        return now_s < self.end_s


async def generate(plan: LoadPlan, client: Client) -> LoadResult:
    """Carry a plan out with a client."""
    window = Window(plan)
    if isinstance(plan.arrivals, Poisson):
        exchanges = await _open_loop(plan, plan.arrivals.rate, client, window)
    else:
        exchanges = await _closed_loop(plan.arrivals.num_clients, client, window)
    answered = [item for item in exchanges if item.error is None and window.began_s <= item.done_s < window.end_s]
    return LoadResult(
        began_s=window.began_s,
        duration_s=window.end_s - window.began_s,
        exchanges=sorted((item for item in exchanges if item.scheduled_s >= window.began_s), key=_due),
        done_in_window=len(answered),
        tokens_in_window=sum(item.completion_tokens or 0 for item in answered),
    )


async def _open_loop(plan: LoadPlan, rate: float, client: Client, window: Window) -> list[Exchange]:
    sending: list[asyncio.Task[Exchange]] = []
    for number, due_s in enumerate(arrival_times(rate, plan.warmup_s + plan.duration_s, plan.seed)):
        await asyncio.sleep(max(0.0, window.start_s + due_s - time.monotonic()))
        # A request that is due is sent even when it is late; a told stop ends the rest.
        if not window.open() and time.monotonic() < window.start_s + plan.warmup_s + plan.duration_s:
            break
        sending.append(asyncio.create_task(client.send(number, window.start_s + due_s)))
    return list(await asyncio.gather(*sending))


async def _closed_loop(num_clients: int, client: Client, window: Window) -> list[Exchange]:
    numbers = itertools.count()
    exchanges: list[Exchange] = []

    async def ask_on() -> None:
        while window.open():
            exchanges.append(await client.send(next(numbers), time.monotonic()))

    await asyncio.gather(*(ask_on() for _ in range(num_clients)))
    return exchanges


def _due(exchange: Exchange) -> float:
    return exchange.scheduled_s


async def _run(plan: LoadPlan) -> LoadResult:
    connections = connections_to(plan.target)
    try:
        return await generate(plan, client_of(plan, connections))
    finally:
        await connections.close()


def main() -> None:
    """Read a plan, carry it out, write the result."""
    plan_path, result_path = map(Path, sys.argv[1:])
    plan = msgspec.msgpack.decode(plan_path.read_bytes(), type=LoadPlan)
    gc.disable()  # a collection would delay what is due meanwhile; the process ends soon
    result_path.write_bytes(msgspec.msgpack.encode(asyncio.run(_run(plan))))


if __name__ == "__main__":
    main()
