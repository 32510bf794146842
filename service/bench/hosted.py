"""A node as `coloq serve` runs it, with control routes of its own on another port of the loopback interface.

    serve's machinery ─► open_node ─► control routes listen, `Control: URL` is said ─► `Ready: URL` ─► …

Everything that answers tenants is `coloq serve`'s. The control routes drive the learner directly, since a tuning run's
work depends on what the journal happens to hold. They take the node's admin key.
"""

import json
import multiprocessing
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Response

from service.bench.control import (
    CONTROL,
    EngineView,
    Nothing,
    PaceOrder,
    PublishOrder,
    PublishView,
    TraceOrder,
    TrainOrder,
    TrainView,
)
from service.bench.learning.host import LearnHost, learn_router, name_base_model
from service.bench.pacing import BenchPacing
from service.bench.publications import Publications
from service.bench.training import BenchLearner, ContinuousTraining
from service.bench.versions import AdapterVersions, FullVersions, Versions
from service.config import NodeConfig
from service.secrets import Secrets
from service.serve import listening, serve
from trainer.adapters import AdapterSlots
from trainer.live import LiveWeights
from trainer.plan import RunPlan
from trainer.records import RunRequest

if TYPE_CHECKING:
    from service.memory_plan import MemoryPlan
    from service.node import Node  # imports vLLM, which reads the environment

_LEARNING_RATE = 1e-6
"""Random weights have nothing to learn, and must not drift where losses stop being finite."""


def main() -> None:
    """Run `serve --config FILE` with control routes."""
    serve(Path(sys.argv[-1]), typer.echo, open_model=_open_hosted)


@asynccontextmanager
async def _open_hosted(config: NodeConfig, model: str, secrets: Secrets, plan: "MemoryPlan") -> AsyncIterator["Node"]:
    from service.node import open_node

    name_base_model(model)
    async with open_node(config, model, secrets, plan) as node:
        controls = Controls.of(node, model)
        async with listening(control_app(controls)) as url:
            typer.echo(f"{CONTROL}{url}")
            try:
                yield node
            finally:
                await controls.close()


def vocab_size(model: Path) -> int:
    """Rows of a model's embedding."""
    size: int = json.loads((model / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    return size


@dataclass(frozen=True, slots=True)
class Controls:
    """What the routes drive."""

    is_admin: Callable[[str], bool]
    training: ContinuousTraining
    publications: Publications
    pacing: BenchPacing
    active_version: Callable[[], int]
    learn: LearnHost

    @classmethod
    def of(cls, node: "Node", model: str) -> "Controls":
        """``model`` is the model's folder."""
        learner = _learner(node, vocab_size(Path(model)))
        training = ContinuousTraining(learner)
        learn = LearnHost(node, model)
        pacing = BenchPacing(node, lambda: training.view.running or learn.running)
        return cls(
            is_admin=node.keys.is_admin,
            training=training,
            publications=Publications(learner, pacing.pulse),
            pacing=pacing,
            active_version=lambda: node.policies.active_version,
            learn=learn,
        )

    async def close(self) -> None:
        """Stop what runs."""
        await self.publications.stop()
        await self.training.stop()
        await self.learn.stop()
        self.pacing.release()


def _learner(node: "Node", num_tokens: int) -> BenchLearner:
    publisher = node.policies
    placement = publisher.placement
    versions: Versions
    if isinstance(placement, AdapterSlots):
        versions = AdapterVersions(publisher.trainer, placement)
    elif isinstance(placement, LiveWeights):
        versions = FullVersions(publisher.trainer, placement)
    else:
        raise TypeError(f"a node places policies in slots or live, got {type(placement).__name__}")
    settings = RunPlan.of(RunRequest(learning_rate=_LEARNING_RATE), node.config.tuning, ()).learner
    return BenchLearner(publisher.trainer, settings, versions, publisher.ledger.next_version, num_tokens)


def control_app(controls: Controls) -> FastAPI:
    """The control routes."""

    def admin_only(authorization: Annotated[str, Header()] = "") -> None:
        if not controls.is_admin(authorization.removeprefix("Bearer ")):
            raise HTTPException(401)

    router = APIRouter(prefix="/bench", dependencies=[Depends(admin_only)])

    @router.post("/train/start")
    async def start_training(order: TrainOrder) -> Nothing:
        controls.training.start(order)
        return Nothing()

    @router.post("/train/stop")
    async def stop_training() -> TrainView:
        return await controls.training.stop()

    @router.get("/train")
    async def get_training() -> TrainView:
        return controls.training.view

    @router.post("/publish")
    async def publish(order: PublishOrder) -> Nothing:
        controls.publications.start(order)
        return Nothing()

    @router.get("/publish")
    async def get_publications() -> PublishView:
        return controls.publications.view

    _engine_routes(router, controls)
    router.include_router(learn_router(controls.learn))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    return app


def _engine_routes(router: APIRouter, controls: Controls) -> None:
    @router.post("/pace")
    async def hold_pace(order: PaceOrder) -> Nothing:
        controls.pacing.hold(order.pace)
        return Nothing()

    @router.post("/trace")
    async def trace(order: TraceOrder) -> Response:
        return Response(await controls.pacing.trace(on=order.on), media_type="application/msgpack")

    @router.get("/engine")
    async def get_engine() -> EngineView:
        pids = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        return EngineView(pids=sorted(pids), active_version=controls.active_version())
