"""Publications one after the other, each with the engine's longest gap around it and just before it.

    make a version (one optimizer step) ─► quiet window ─► [publish ─► rest of the swap window] ─► rest of the interval
                                           longest gap      longest gap

Both windows are of equal length and read out by one call each, so what differs is the publication.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

from agent.errors import ColoqError
from service.bench.control import EngineGap, Publication, PublishOrder, PublishView
from service.bench.training import BenchLearner, synthetic_batch
from trainer.pace import Pulse

TakePulse = Callable[[], Awaitable[Pulse]]
"""What the engine measured since the last call."""


class Publications:
    """One series at a time on one learner."""

    def __init__(self, learner: BenchLearner, pulse: TakePulse) -> None:
        self._learner, self._pulse = learner, pulse
        self._done: list[Publication] = []
        self._failure: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def view(self) -> PublishView:
        running = self._task is not None and not self._task.done()
        return PublishView(running=running, publications=self._done, failure=self._failure)

    def start(self, order: PublishOrder) -> None:
        """Publish in the background. Raises RuntimeError while a series runs."""
        if self.view.running:
            raise RuntimeError("one series of publications at a time, and one is running")
        self._done, self._failure = [], None
        self._task = asyncio.create_task(self._run(order), name="bench-publications")

    async def finished(self) -> PublishView:
        """Wait for the last publication."""
        if self._task is not None:
            await self._task
        return self.view

    async def stop(self) -> None:
        """End the series where it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self, order: PublishOrder) -> None:
        """The boundary that a failed publication does not cross: the reason is in the view."""
        versions = self._learner.versions
        try:
            await versions.begin(self._learner.settings)
            try:
                await self._publish_all(order)
            finally:
                await versions.end()
        except ColoqError as error:
            self._failure = str(error)

    async def _publish_all(self, order: PublishOrder) -> None:
        for number in range(order.count):
            due_s = time.monotonic() + order.interval_ms / 1000
            self._done.append(await self._publish_one(number, order))
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _publish_one(self, number: int, order: PublishOrder) -> Publication:
        version = await self._learner.next_version()
        batch = synthetic_batch(order.batch, self._learner.vocab_size, seed=number)
        making_s = time.monotonic()
        await self._learner.trainer.step(batch, version)
        made_s = time.monotonic()
        await self._pulse()
        await asyncio.sleep(order.window_ms / 1000)
        quiet = await self._pulse()
        at_s = time.monotonic()
        await self._learner.versions.publish(version)
        published_s = time.monotonic()
        await asyncio.sleep(max(0.0, at_s + order.window_ms / 1000 - published_s))
        swap = await self._pulse()
        return Publication(
            version=version,
            at_s=at_s,
            make_ms=(made_s - making_s) * 1000,
            publish_ms=(published_s - at_s) * 1000,
            quiet=_gap(quiet),
            swap=_gap(swap),
        )


def _gap(pulse: Pulse) -> EngineGap:
    return EngineGap(num_steps=pulse.num_engine_steps, p50_ms=pulse.step_p50_ms, max_ms=pulse.step_max_ms)
