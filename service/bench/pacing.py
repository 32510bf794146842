"""The hosted node's pacing: its controller also knows of the bench's training, and can be put aside for a fixed pace.

node's own pacing   sees tuning runs only ─► ended
in its place        the same loop and controller, told of the bench's training too
or                  one pace, sent again and again; pulses go to the bench
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from agent.brief import Brief
from agent.completion import Sampling
from agent.episode import Reply
from service.controller import Controller
from service.metering import MeteredContent
from service.pacing import LiveRequests, Pacing, ScoringGate
from service.slo import LiveRequest
from trainer.pace import Pace, Pulse

if TYPE_CHECKING:
    from service.node import Node

_NODES_OWN_TASK = "pacing"
_PACE_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class ObservedContent(MeteredContent):
    """The node's content port, which also shows finished requests to the pacing."""

    live: LiveRequests

    async def write(self, brief: Brief, sampling: Sampling, *, request_id: str) -> Reply:
        """See ContentPort."""
        started_s = time.monotonic()
        reply = await MeteredContent.write(self, brief, sampling, request_id=request_id)
        if reply.timing is not None:
            self.live.add(LiveRequest(started_s, time.monotonic(), reply.timing))
        return reply


class BenchPacing:
    """Speaks with the engine's pacer, in the node's place. One task at a time does."""

    def __init__(self, node: "Node", is_training: Callable[[], bool]) -> None:
        self._node = node
        self._is_training = is_training
        self._live = LiveRequests(node.metrics.metrics)
        self._sizes: tuple[int, ...] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def content(self) -> ObservedContent:
        """What must answer requests, so that the controller hears of them."""
        return ObservedContent(self._node.content.agent, self._node.content.metrics, self._live)

    def control(self) -> None:
        """End the node's own pacing, and run its controller here."""
        for task in asyncio.all_tasks():
            if task.get_name() == _NODES_OWN_TASK:
                task.cancel()
        pacing = Pacing(
            self._node.engine,
            Controller(self._node.config.slo),
            self._live,
            ScoringGate(),
            self._node.metrics.metrics,
            is_tuning=lambda: self._is_training() or self._node.tuning.summary == "running",
        )
        self._task = asyncio.create_task(pacing.run(), name="bench-pacing")

    def hold(self, pace: Pace) -> None:
        """Send ``pace`` from now on, and again and again, so that a restarted engine gets it too."""
        self.release()
        self._task = asyncio.create_task(self._send_on(pace), name="bench-pace")

    def release(self) -> None:
        """Send nothing by itself from now on."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def pulse(self) -> Pulse:
        """What the engine measured since the last call; ends whoever else would take that.

        Under load the trainer may use half of the GPU, all of the time.
        """
        self.release()
        if self._sizes is None:
            # A pace must name one of the sizes, which only a pulse tells; at a duty of 0 the number is not used.
            self._sizes = (await self._exchange(Pace(num_sms=0, duty=0.0))).partition_sizes
        half = self._sizes[len(self._sizes) // 2] if self._sizes else 0
        return await self._exchange(Pace(num_sms=half, duty=1.0))

    async def _send_on(self, pace: Pace) -> None:
        while True:
            await self._exchange(pace)
            await asyncio.sleep(_PACE_EVERY_S)

    async def _exchange(self, pace: Pace) -> Pulse:
        data = await self._node.engine.call("coloq_pace", msgspec.msgpack.encode(pace))
        return msgspec.msgpack.decode(data, type=Pulse)
