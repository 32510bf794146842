"""Routes for probes and scrapers. They take no key: the node binds 127.0.0.1 by default, and whoever opens it to a
network puts these paths behind the proxy. They tell states and counts, never content."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from starlette.responses import PlainTextResponse

from service.http.ports import Health
from service.http.state import Parts

METRICS_MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NOT_READY_RETRY_S = 5

router = APIRouter(tags=["operation"])


class Liveness(BaseModel):
    """The front process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Readiness of each part."""

    ready: bool = Field(description="True when content can be served.")
    engine: str = Field(description="`ready`, `starting`, `restarting` or `stopped`.", examples=["ready"])
    store: str = Field(description="`ready` or `unreachable`.", examples=["ready"])
    tuning: str = Field(description="`idle`, `running`, or `stopped: <reason>` after a failed run.", examples=["idle"])
    policy_version: int = Field(description="The policy that serves; 0 is the untuned model.", examples=[3])

    @classmethod
    def of(cls, health: Health) -> "Readiness":
        return cls.model_validate(health, from_attributes=True)


@router.get("/healthz", summary="Liveness: the front process answers")
async def get_liveness() -> Liveness:
    """Says nothing about the engine; use it to decide on a restart of the whole node."""
    return Liveness()


@router.get(
    "/readyz",
    summary="Readiness: content can be served",
    responses={503: {"model": Readiness, "description": "Not ready; the parts say why."}},
)
async def get_readiness(response: Response, parts: Parts) -> Readiness:
    """Use it to route traffic. A failed tuning run does not make a node unready."""
    health = await parts.node.health()
    if not health.ready:
        response.status_code = 503
        response.headers["Retry-After"] = str(NOT_READY_RETRY_S)
    return Readiness.of(health)


@router.get("/metrics", summary="Metrics in Prometheus' text format", response_class=PlainTextResponse)
async def get_metrics(parts: Parts) -> PlainTextResponse:
    """Counts and times by route, tenant and policy version; no content."""
    return PlainTextResponse(parts.metrics.render(), media_type=METRICS_MEDIA_TYPE)
