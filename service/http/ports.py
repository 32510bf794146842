"""What the HTTP layer needs of a node, as Protocols.

`service.node.Node` provides `NodePorts`, `service.tenants` the authenticator and `service.telemetry` the metrics. The
fakes are in `service.http.fakes`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent.chat import ChatReply, Dialogue
from agent.commission import Commission
from agent.completion import Sampling
from agent.config import TenantSettings
from agent.episode import Reply
from agent.ports import Listener
from service.canary.canaries import Canaries
from service.canary.ports import Policies
from service.feedback.assembly import NodeFeedback
from service.jobs.desk import JobDesk
from service.reward_models.records import TrainingStatus
from service.reward_models.shelf import LanguageModels
from service.reward_models.trainings import TrainingRequest
from service.tenancy.audit import AuditLog
from service.tenancy.caller import Caller
from service.tenancy.limits import Limiter
from service.tenancy.record import KeyRecord, TenantRecord
from service.tenancy.registry import IssuedKey, KeyOrder
from service.tenant_policies import TenantPolicies
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
    """`idle`, `running` or `stopped: <reason>` after a failed or interrupted run."""
    policy_version: int


class ContentPort(Protocol):
    async def write(self, commission: Commission) -> Reply:
        """Answer a brief and journal the episode; a listener hears the text that is served as it comes.

        Raises InvalidBrief, EngineError, TimeoutError.
        """
        ...


class ChatPort(Protocol):
    async def answer(
        self,
        dialogue: Dialogue,
        sampling: Sampling,
        *,
        request_id: str,
        num_choices: int = 1,
        listeners: Sequence[Listener] = (),
        wait_s: float | None = None,
    ) -> ChatReply:
        """Answer a conversation and journal the episode; listeners, one for each choice, hear the text as it comes. A
        repair ends when the caller has waited for ``wait_s``.

        Raises EngineError, InvalidBrief, TimeoutError.
        """
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
        """Ask a run to stop after its current step, or give an interrupted one up. Raises NotFound; another final run
        is returned as it is."""
        ...

    async def resume(self, run_id: str) -> RunStatus:
        """Go on with an interrupted run from its last checkpoint. Raises NotFound, Conflict with what is in the way."""
        ...


class PolicyPort(Policies, Protocol):
    @property
    def active_version(self) -> int: ...

    async def list(self) -> Sequence[PolicyRecord]:
        """Published policies, newest first, the base model last."""
        ...

    async def served(self, tenant: str | None = None) -> Sequence[PolicyRecord]:
        """Those of the published policies that the engine holds and the tenant may have, so that a request may name
        them."""
        ...

    async def find_served(self, version: int, tenant: str | None = None) -> PolicyRecord:
        """One of them. Raises NotFound, which says whether it was published at all."""
        ...

    async def activate(self, version: int) -> PolicyRecord:
        """Roll back or forward. Raises NotFound, PublicationFailed."""
        ...


class RewardModelsPort(Protocol):
    """Reward models of all languages, service.reward_models.desk.RewardModelDesk; see there for what calls raise."""

    async def list(self) -> Sequence[LanguageModels]: ...

    async def of(self, language: str) -> LanguageModels: ...

    async def activate(self, language: str, version: int) -> LanguageModels: ...

    async def train(self, language: str, request: TrainingRequest) -> TrainingStatus: ...

    async def training(self, training_id: str) -> TrainingStatus: ...

    async def trainings(self) -> Sequence[TrainingStatus]: ...

    async def cancel(self, training_id: str) -> TrainingStatus: ...


class TenancyPort(Protocol):
    """The tenants' registry, service.tenancy.registry.TenantRegistry; see there for what each call raises."""

    def list(self) -> Sequence[TenantRecord]: ...

    def get(self, tenant: str) -> TenantRecord: ...

    def warnings(self, settings: TenantSettings) -> tuple[str, ...]: ...

    async def last_used(self, tenant: str) -> Mapping[str, datetime]: ...

    async def create(self, settings: TenantSettings) -> TenantRecord: ...

    async def replace(self, settings: TenantSettings) -> TenantRecord: ...

    async def delete(self, tenant: str) -> None: ...

    async def add_key(self, tenant: str, order: KeyOrder) -> IssuedKey: ...

    async def rotate_key(self, tenant: str, key_id: str, overlap_s: float) -> IssuedKey: ...

    async def revoke_key(self, tenant: str, key_id: str) -> KeyRecord: ...


class NodePorts(Protocol):
    @property
    def content(self) -> ContentPort: ...

    @property
    def chat(self) -> ChatPort: ...

    @property
    def tuning(self) -> TuningPort: ...

    @property
    def policies(self) -> PolicyPort: ...

    @property
    def reward_models(self) -> RewardModelsPort: ...

    @property
    def canaries(self) -> Canaries: ...

    @property
    def tenant_policies(self) -> TenantPolicies: ...

    @property
    def jobs(self) -> JobDesk: ...

    @property
    def webhooks(self) -> Webhooks: ...

    @property
    def feedback(self) -> NodeFeedback: ...

    @property
    def tenancy(self) -> TenancyPort: ...

    @property
    def limits(self) -> Limiter: ...

    @property
    def audit(self) -> AuditLog: ...

    async def health(self) -> Health: ...


class Authenticator(Protocol):
    """Who holds a key. Both calls are made on the event loop and must not block."""

    def caller(self, key: str) -> Caller | None:
        """Who holds `key`, or None."""
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
