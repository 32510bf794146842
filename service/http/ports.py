"""What the HTTP layer needs of a node, as Protocols.

`service.node.Node` provides `NodePorts`, `service.tenants` the authenticator and `service.telemetry` the metrics. The
fakes are in `service.http.fakes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.brief import Brief
from agent.completion import Sampling
from agent.config import TenantSettings
from agent.episode import Reply
from service.webhooks.assembly import Webhooks
from trainer.records import PolicyRecord, RunRequest, RunStatus


@dataclass(frozen=True, slots=True)
class Health:
    """Readiness of each part: `ready` when content can be served."""

    ready: bool
    engine: str
    """`ready`, `starting`, `restarting` or `stopped`."""
    store: str
    """`ready` or `unreachable`."""
    tuning: str
    """`idle`, `running` or `stopped: <reason>` after a failed run."""
    policy_version: int


class ContentPort(Protocol):
    async def write(self, brief: Brief, sampling: Sampling, *, request_id: str) -> Reply:
        """Answer a brief and journal the episode. Raises EngineError, TimeoutError."""
        ...


class TuningPort(Protocol):
    async def start(self, request: RunRequest) -> RunStatus:
        """Start a run. Raises Conflict with the running run's id, InvalidInput for an unknown language."""
        ...

    async def status(self, run_id: str) -> RunStatus:
        """Raises NotFound."""
        ...

    async def list(self) -> Sequence[RunStatus]:
        """Newest first."""
        ...

    async def stop(self, run_id: str) -> RunStatus:
        """Ask a run to stop after its current step. Raises NotFound; a final run is returned as it is."""
        ...


class PolicyPort(Protocol):
    @property
    def active_version(self) -> int: ...

    async def list(self) -> Sequence[PolicyRecord]:
        """Published policies, newest first, the base model last."""
        ...

    async def activate(self, version: int) -> PolicyRecord:
        """Roll back or forward. Raises NotFound, PublicationFailed."""
        ...


class NodePorts(Protocol):
    @property
    def content(self) -> ContentPort: ...

    @property
    def tuning(self) -> TuningPort: ...

    @property
    def policies(self) -> PolicyPort: ...

    @property
    def webhooks(self) -> Webhooks: ...

    async def health(self) -> Health: ...


class Authenticator(Protocol):
    """Who holds a key. Both calls are made on the event loop and must not block."""

    def tenant(self, key: str) -> TenantSettings | None:
        """The tenant that holds `key`, or None."""
        ...

    def is_admin(self, key: str) -> bool:
        """True when `key` is the node's admin key."""
        ...

    def tenant_of_id(self, tenant: str) -> TenantSettings | None:
        """The tenant of that id, or None: for calls of inbound hooks, which carry no key."""
        ...


class RequestMetrics(Protocol):
    """Where requests are counted, and the text that `GET /metrics` returns."""

    def observe_request(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        """Count one request. `route` is a template such as `/admin/tuning/runs/{run_id}`, or `unmatched`."""
        ...

    def render(self) -> str:
        """Every metric in Prometheus' text format, version 0.0.4."""
        ...
