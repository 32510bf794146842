"""What a bench asks of its hosted node: training that never waits for prompts, publications, a fixed pace.

Bodies of the control routes, and their client. Times are of the machine's monotonic clock. Knows nothing of how it is
done: that is service.bench.hosted, in the node's process.
"""

import asyncio
from types import TracebackType
from typing import Annotated, Self, TypeVar

import httpx
import msgspec
from pydantic import BaseModel, ConfigDict, Field

from service.bench.failure import BenchFailed
from trainer.pace import Pace
from trainer.step_trace import StepTrace

View = TypeVar("View", bound=BaseModel)
CONTROL = "Control: "
"""What the hosted node's line with its control routes' address begins with."""
HOSTED_PROGRAM = "from service.bench.hosted import main; main()"
_TIMEOUT_S = 180.0
"""A node that has not done what it was asked for by then never will."""
_POLL_S = 0.2


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Nothing(_Message):
    """An empty answer."""


class BatchShape(_Message):
    """Token counts of a synthetic batch."""

    batch_size: Annotated[int, Field(ge=1)]
    length: Annotated[int, Field(ge=2)]
    """Prompt and reply of every sequence, in tokens."""
    reply_tokens: Annotated[int, Field(ge=1)]
    """The last so many tokens of each sequence are trained on."""

    @property
    def num_tokens(self) -> int:
        """Positions that go through forward and backward."""
        return self.batch_size * self.length


class TrainOrder(_Message):
    """Train on synthetic batches, one after the other."""

    batch: BatchShape
    num_steps: Annotated[int, Field(ge=1)] | None = None
    """None trains until it is stopped."""


class TrainedStep(_Message):
    """One optimizer step."""

    began_s: float
    """When it could begin: submitted, and the step before it done."""
    ended_s: float
    num_tokens: int
    step_s: float
    """As the learner measured it."""
    loss: float
    grad_norm: float


class TrainView(_Message):
    """Training so far."""

    running: bool
    steps: list[TrainedStep]
    failure: str | None = None


class PublishOrder(_Message):
    """Publish fresh versions at an interval, each made by one optimizer step beforehand."""

    count: Annotated[int, Field(ge=1)]
    interval_ms: Annotated[float, Field(gt=0)]
    """From one publication to the next, if making the version takes no longer."""
    window_ms: Annotated[float, Field(gt=0)]
    """Length of the time around a publication, and of the one before it, whose longest gap is measured."""
    batch: BatchShape


class EngineGap(_Message):
    """The engine's steps in one window."""

    num_steps: int
    p50_ms: float
    max_ms: float
    """Longest time between the begins of two consecutive steps of a busy engine."""


class Publication(_Message):
    """One publication."""

    version: int
    at_s: float
    make_ms: float
    """The optimizer step that made the version; not part of the publication."""
    publish_ms: float
    """Slot freed, version installed and activated."""
    quiet: EngineGap
    """A window just before it."""
    swap: EngineGap
    """A window of equal length that begins with it."""


class PublishView(_Message):
    """Publications so far."""

    running: bool
    publications: list[Publication]
    failure: str | None = None


class PaceOrder(_Message):
    """Hold the trainer to this while the engine is busy."""

    num_sms: Annotated[int, Field(ge=0)]
    duty: Annotated[float, Field(ge=0, le=1)]

    @classmethod
    def parse(cls, text: str) -> "PaceOrder":
        """``NUM_SMS:DUTY``, such as ``64:0.8``. Raises ValueError."""
        num_sms, _, duty = text.partition(":")
        return cls(num_sms=int(num_sms), duty=float(duty))

    def __str__(self) -> str:
        return f"{self.num_sms}:{self.duty:g}"

    @property
    def pace(self) -> Pace:
        return Pace(num_sms=self.num_sms, duty=self.duty, compares=True)


class TraceOrder(_Message):
    """Trace the engine's steps from now on, or no longer."""

    on: bool


class EngineView(_Message):
    """The engine's processes."""

    pids: list[int]
    active_version: int


class ControlClient:
    """The control routes of one hosted node. Use it as an async context manager.

    Every method raises BenchFailed when the node refuses or cannot be reached.
    """

    def __init__(self, url: str, admin_key: str) -> None:
        headers = {"Authorization": f"Bearer {admin_key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_S, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def start_training(self, order: TrainOrder) -> None:
        """Begin a run and train in the background; returns once the first step is done."""
        await self._call("POST", "/bench/train/start", Nothing, order)
        while not (view := await self.training()).steps:
            if view.failure is not None:
                raise BenchFailed(f"training must go on, but: {view.failure}")
            await asyncio.sleep(_POLL_S)

    async def training(self) -> TrainView:
        """Training so far; a failure is in it."""
        return await self._call("GET", "/bench/train", TrainView)

    async def stop_training(self) -> TrainView:
        """Finish the steps in hand. Raises BenchFailed also when training had failed."""
        view = await self._call("POST", "/bench/train/stop", TrainView)
        if view.failure is not None:
            raise BenchFailed(f"training must go on, but: {view.failure}")
        return view

    async def publish(self, order: PublishOrder) -> None:
        """Publish in the background."""
        await self._call("POST", "/bench/publish", Nothing, order)

    async def publications(self) -> PublishView:
        """Publications so far; a failure is in it."""
        return await self._call("GET", "/bench/publish", PublishView)

    async def hold_pace(self, order: PaceOrder) -> None:
        """Send this pace from now on, instead of the node's own controller."""
        await self._call("POST", "/bench/pace", Nothing, order)

    async def trace(self, *, on: bool) -> StepTrace:
        """What was traced since the last call with ``on``; with it, a new trace begins."""
        return msgspec.msgpack.decode(await self._send("POST", "/bench/trace", TraceOrder(on=on)), type=StepTrace)

    async def engine(self) -> EngineView:
        """The engine's processes."""
        return await self._call("GET", "/bench/engine", EngineView)

    async def _call(self, method: str, path: str, view: type[View], body: BaseModel | None = None) -> View:
        return view.model_validate_json(await self._send(method, path, body))

    async def _send(self, method: str, path: str, body: BaseModel | None) -> bytes:
        content = body.model_dump_json() if body is not None else None
        try:
            response = await self._http.request(
                method, path, content=content, headers={"Content-Type": "application/json"}
            )
            response.raise_for_status()
        except httpx.HTTPError as error:
            raise BenchFailed(f"the hosted node must answer {method} {path}, got {error}") from error
        return response.content
