"""The hosted node's pacing: its controller also hears of the bench's training, and can stand aside for a fixed pace."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from service.slowdown import Slowdown
from trainer.pace import Pace, Pulse

if TYPE_CHECKING:
    from service.node import Node

_PACE_EVERY_S = 0.2


class BenchPacing:
    """Speaks with the engine's pacer in the controller's place, from the first ``hold`` or ``pulse`` on."""

    def __init__(self, node: "Node", is_training: Callable[[], bool]) -> None:
        self._node = node
        self._sizes: tuple[int, ...] | None = None
        self._task: asyncio.Task[None] | None = None
        self._slowdown = Slowdown()
        node.pacing.watch(is_training)

    def hold(self, pace: Pace) -> None:
        """Send ``pace`` from now on, and again and again, so that a restarted engine gets it too.

        The node's metrics show what comes of it.
        """
        self.release()
        self._slowdown = Slowdown()
        self._node.pacing.aside = True
        self._task = asyncio.create_task(self._send_on(pace), name="bench-pace")

    def release(self) -> None:
        """Send nothing by itself from now on."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def pulse(self) -> Pulse:
        """What the engine measured since the last call; nobody else takes that from now on.

        Under load the trainer may use half of the GPU, all of the time.
        """
        self.release()
        self._node.pacing.aside = True
        if self._sizes is None:
            # A pace must name one of the sizes, which only a pulse tells; at a duty of 0 the number is not used.
            self._sizes = (await self._exchange(Pace(num_sms=0, duty=0.0))).partition_sizes
        half = self._sizes[len(self._sizes) // 2] if self._sizes else 0
        return await self._exchange(Pace(num_sms=half, duty=1.0))

    async def trace(self, *, on: bool) -> bytes:
        """What the engine traced since the last call with ``on``: a StepTrace as msgpack."""
        data: bytes = await self._node.engine.call("coloq_trace", on)
        return data

    async def _send_on(self, pace: Pace) -> None:
        while True:
            pulse = await self._exchange(pace)
            if pulse.matched.expected_s > 0:
                self._slowdown.add(pulse.matched.steps_s / pulse.matched.expected_s, pulse.matched.error)
            self._node.pacing.show(pulse, self._slowdown.mean)
            await asyncio.sleep(_PACE_EVERY_S)

    async def _exchange(self, pace: Pace) -> Pulse:
        data = await self._node.engine.call("coloq_pace", msgspec.msgpack.encode(pace))
        return msgspec.msgpack.decode(data, type=Pulse)
