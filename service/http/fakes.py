"""Fakes of `service.http.ports`: a node without an engine, store or trainer. They keep what they were asked.

`served` puts an app of fakes behind a real server, for clients that need a socket.
"""

import asyncio
import itertools
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import uvicorn
from starlette.types import ASGIApp

from agent.alternatives import ONE, Alternatives
from agent.brief import Brief, Kind
from agent.chat import ChatReply, Choice, Dialogue
from agent.completion import BASE_VERSION, GenerationTiming, Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.episode import Reply
from agent.errors import Conflict, NotFound, PublicationFailed
from agent.ports import Delta, Listener
from agent.verdict import LanguageVerdict, SentenceVerdict, Verdict
from rewards.config import RewardsConfig
from rewards.fakes import FakeRewardModel
from service.canary.canaries import Canaries
from service.canary.config import CanaryConfig
from service.canary.fakes import MemoryTrials, RememberedTrials
from service.canary.parts import CanaryParts
from service.canary.ports import NoFeedback, Policies
from service.canary.scoring import SampledScoring
from service.canary.traffic import Traffic
from service.config import NodeConfig
from service.http.content_executor import ContentExecutor, TenantLookup
from service.http.ports import Health
from service.jobs.desk import JobDesk
from service.jobs.fakes import MemoryJobStore, RememberedEvents
from service.jobs.ports import JobEvents, JobStore
from service.pins import PolicyPins
from service.routable_slots import RoutableSlots
from service.routing import PolicyRoutes
from service.secrets import hash_key
from service.tenancy.audit import MemoryAudit
from service.tenancy.caller import Caller
from service.tenancy.fakes import MemoryTenantStore
from service.tenancy.limits import Limiter
from service.tenancy.record import ALL_SCOPES, Scope, seeded_key_id
from service.tenancy.registry import TenantRegistry
from service.tenancy.rules import TenantRules
from service.tenant_policies import TenantPolicies
from service.tenants import Tenants, seeded
from service.webhooks.assembly import Webhooks
from service.webhooks.fakes import fake_webhooks
from trainer.fakes import FakeAdmission, MemoryLedger
from trainer.ports import Method
from trainer.records import PolicyRecord, RunRequest, RunState, RunStatus, StepReport
from trainer.trail import continued

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
READY = Health(ready=True, engine="ready", store="ready", tuning="idle", policy_version=3)


@dataclass
class FakeContent:
    """Answers with `text` after `delay_s`, or raises `error`. Who listens hears the text at once."""

    text: str = "Guten Tag."
    error: Exception | None = None
    delay_s: float = 0.0
    policy_version: int = 3
    timing: GenerationTiming | None = None
    calls: list[tuple[Brief, Sampling, str]] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(
        self,
        brief: Brief,
        sampling: Sampling,
        *,
        request_id: str,
        alternatives: Alternatives = ONE,
        listener: Listener | None = None,
    ) -> Reply:
        self.calls.append((brief, sampling, request_id))
        self.alternatives.append(alternatives)
        self.started.set()
        if listener is not None and self.error is None:
            listener(Delta(self.text))
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.error is not None:
            raise self.error
        return self._reply(brief, request_id, alternatives.n)

    def _reply(self, brief: Brief, request_id: str, num_texts: int) -> Reply:
        others = tuple(f"{self.text} {number}" for number in range(2, num_texts + 1))
        sentence = SentenceVerdict(0, len(self.text), Verdict.PASS, brief.language, 0.98)
        return Reply(
            request_id=request_id,
            text=self.text,
            language=brief.language,
            verdict=LanguageVerdict(brief.language, Verdict.PASS, 1.0, (sentence,)),
            policy_version=self.policy_version,
            finish_reason="stop",
            prompt_tokens=40,
            completion_tokens=5,
            duration_ms=12.5,
            timing=self.timing,
            alternatives=others if num_texts > 1 else None,
        )


@dataclass
class FakeChat:
    """Answers with `text`, or raises `error`; `timing` and verdicts are those of `FakeContent`."""

    text: str = "Guten Tag."
    error: Exception | None = None
    delay_s: float = 0.0
    calls: list[tuple[Dialogue, Sampling, int]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(
        self,
        dialogue: Dialogue,
        sampling: Sampling,
        *,
        request_id: str,
        num_choices: int = 1,
        listeners: Sequence[Listener] = (),
    ) -> ChatReply:
        self.calls.append((dialogue, sampling, num_choices))
        content = FakeContent(text=self.text, error=self.error, delay_s=self.delay_s, cancelled=self.cancelled)
        brief = Brief(dialogue.tenant, Kind.CHAT, dialogue.languages[0], instructions=dialogue.turns[-1].content)
        listener = listeners[0] if listeners else None
        reply = await content.write(brief, sampling, request_id=request_id, listener=listener)
        return ChatReply(request_id, (Choice(reply, ()),) * num_choices)


def step_report(step: int, *, reward: float = 0.5, loss: float = 0.1, version: int | None = None) -> StepReport:
    """A plausible report of one step."""
    return StepReport(
        step=step,
        version=version if version is not None else step,
        num_sequences=32,
        num_tokens=2048,
        reward_mean=reward,
        reward_std=0.1,
        reward_by_language={"de": reward},
        parts={"language": reward},
        dropped={},
        loss=loss,
        grad_norm=1.0,
        clip_fraction=0.0,
        effective_sample_size=0.97,
        mismatch_mean=0.01,
        rollout_s=1.0,
        score_s=0.1,
        train_s=0.5,
        install_s=0.01,
    )


@dataclass
class FakeTuning:
    """Runs that take one step of `reports` each time their status is asked for, and then end as `ends`.

    Without reports a run stays at its start until it is stopped.
    """

    reports: Sequence[StepReport] = ()
    ends: RunState = RunState.SUCCEEDED
    reason: str | None = None
    error: Exception | None = None
    """Raised by `start`."""
    runs: dict[str, RunStatus] = field(default_factory=dict)
    _ids: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def start(self, request: RunRequest) -> RunStatus:
        if self.error is not None:
            raise self.error
        running = next((run.id for run in self.runs.values() if not run.state.final), None)
        if running is not None:
            raise Conflict(f"one tuning run at a time, and {running} is running", running)
        status = RunStatus(
            id=f"run_{next(self._ids)}",
            state=RunState.RUNNING,
            request=request,
            started_at=EPOCH,
            ended_at=None,
            num_steps=request.steps or len(self.reports) or 20,
            steps=(),
            published=(),
            evaluation=None,
            reason=None,
        )
        self.runs[status.id] = status
        return status

    async def status(self, run_id: str) -> RunStatus:
        run = self._run(run_id)
        if not run.state.final and self.reports:
            self.runs[run_id] = run = self._advanced(run)
        return run

    async def list(self) -> Sequence[RunStatus]:
        return [*reversed(self.runs.values())]

    async def stop(self, run_id: str) -> RunStatus:
        run = self._run(run_id)
        if run.state.final:
            return run
        self.runs[run_id] = replace(run, state=RunState.STOPPED, ended_at=EPOCH, reason="stopped by an operator")
        return self.runs[run_id]

    async def resume(self, run_id: str) -> RunStatus:
        run = self._run(run_id)
        if run.state is not RunState.INTERRUPTED:
            raise Conflict(f"only an interrupted run can be resumed, and {run_id} is {run.state.value}")
        self.runs[run_id] = replace(
            run,
            state=RunState.RUNNING,
            ended_at=None,
            reason=None,
            resumed_after=(*run.resumed_after, len(run.steps)),
        )
        return self.runs[run_id]

    def _run(self, run_id: str) -> RunStatus:
        if run_id not in self.runs:
            raise NotFound(f"there is no tuning run {run_id}")
        return self.runs[run_id]

    def _advanced(self, run: RunStatus) -> RunStatus:
        steps = tuple(self.reports[: len(run.steps) + 1])
        if len(steps) < len(self.reports):
            return replace(run, steps=steps)
        published = (steps[-1].version,) if self.ends is RunState.SUCCEEDED else ()
        return replace(run, steps=steps, state=self.ends, published=published, ended_at=EPOCH, reason=self.reason)


BASE_POLICY = PolicyRecord(BASE_VERSION, "base", None, None, EPOCH, None, None, None)


@dataclass
class FakePolicies:
    """Policies by version, the active one among them."""

    records: dict[int, PolicyRecord] = field(default_factory=lambda: {BASE_VERSION: BASE_POLICY})
    active_version: int = BASE_VERSION
    error: Exception | None = None
    """Raised by `activate`."""
    evicted: set[int] = field(default_factory=set)
    """Published, but not in the engine."""
    damaged: set[int] = field(default_factory=set)
    """Published, and cannot be loaded."""
    method: Method = "adapter"
    trail: list[int] = field(default_factory=lambda: [BASE_VERSION])

    async def list(self) -> Sequence[PolicyRecord]:
        return [self.records[version] for version in sorted(self.records, reverse=True)]

    async def served(self, tenant: str | None = None) -> Sequence[PolicyRecord]:
        records = [record for record in await self.list() if record.tenant in (None, tenant)]
        return [record for record in records if self.holds(record.version)]

    async def find_served(self, version: int, tenant: str | None = None) -> PolicyRecord:
        record = self.records.get(version)
        if record is None or record.tenant not in (None, tenant) or not self.holds(version):
            raise NotFound(f"there is no policy {version} in the engine")
        return record

    async def find(self, version: int) -> PolicyRecord:
        if version not in self.records:
            raise NotFound(f"there is no policy {version}")
        return self.records[version]

    def holds(self, version: int) -> bool:
        return version not in self.evicted | self.damaged

    async def ensure(self, version: int) -> None:
        await self.find(version)
        if version in self.damaged:
            raise PublicationFailed(f"policy v{version} cannot be read")
        self.evicted.discard(version)

    async def previous(self) -> int | None:
        return self.trail[-2] if len(self.trail) > 1 else None

    async def activate(self, version: int) -> PolicyRecord:
        if self.error is not None:
            raise self.error
        if (await self.find(version)).tenant is not None:
            raise Conflict(f"policy {version} is one tenant's own")
        self.active_version = version
        self.trail = continued(self.trail, version)
        return self.records[version]


FAKE_TENANT = TenantSettings(
    id="acme",
    languages={code: LanguageSettings() for code in "ar cs de en es fr hi it ja ko nl pl pt sv tr uk zh".split()},
)


class AnyTenant:
    """Every tenant that is asked for, with the languages of the prompts."""

    def get(self, tenant: str) -> TenantSettings | None:
        """See TenantLookup."""
        return FAKE_TENANT.model_copy(update={"id": tenant})


def registry_of(settings: Sequence[TenantSettings]) -> TenantRegistry:
    """The real registry, with these tenants in a store in memory; every language of the detector's is known."""
    records = [seeded(tenant, EPOCH) for tenant in settings]
    rules = TenantRules(labels={"de", "en", "fr", "pl"}, parts=set(RewardsConfig().weights))
    return TenantRegistry(MemoryTenantStore(records), Tenants(records), rules)


def canaries_of(
    policies: Policies, languages: Sequence[str] = ("de", "en", "pl")
) -> tuple[Canaries, TenantPolicies, PolicyPins]:
    """The real canaries, tenants' policies and pins over fakes; three versions may answer beside the active one."""
    routes, slots = PolicyRoutes(), RoutableSlots(3)
    traffic = Traffic(routes)
    parts = CanaryParts(
        policies=policies,
        routes=routes,
        traffic=traffic,
        scoring=SampledScoring(traffic, FakeRewardModel(), FakeAdmission(), per_minute=60),
        feedback=NoFeedback(),
        store=MemoryTrials(),
        events=RememberedTrials(),
        languages=lambda: languages,
        slots=slots,
    )
    tenants = TenantPolicies(MemoryLedger(), routes, slots)
    return Canaries(CanaryConfig(), parts), tenants, PolicyPins(policies, routes, slots)


@dataclass
class FakeNode:
    """A node of fakes; its jobs are real ones, in memory unless `job_store` says otherwise."""

    content: FakeContent = field(default_factory=FakeContent)
    chat: FakeChat = field(default_factory=FakeChat)
    tuning: FakeTuning = field(default_factory=FakeTuning)
    policies: FakePolicies = field(default_factory=FakePolicies)
    webhooks: Webhooks = field(default_factory=fake_webhooks)
    state: Health = READY
    tenancy: TenantRegistry = field(default_factory=lambda: registry_of(()))
    limits: Limiter = field(default_factory=Limiter)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    tenants: TenantLookup = field(default_factory=AnyTenant)
    config: NodeConfig = field(default_factory=NodeConfig)
    job_store: JobStore = field(default_factory=MemoryJobStore)
    events: JobEvents = field(default_factory=RememberedEvents)
    jobs: JobDesk = field(init=False)
    canaries: Canaries = field(init=False)
    tenant_policies: TenantPolicies = field(init=False)
    pins: PolicyPins = field(init=False)

    def __post_init__(self) -> None:
        self.canaries, self.tenant_policies, self.pins = canaries_of(self.policies)
        self.tenant_policies.use_tenants([record.settings for record in self.tenancy.list()])
        self.tenancy.hold_pins_to(self.pins)
        executor = ContentExecutor(self.content, self.tenants, self.config.agent)
        self.jobs = JobDesk(self.job_store, executor, self.events, self.config.jobs, sole_user=True)

    async def health(self) -> Health:
        return self.state


@dataclass
class FakeAuthenticator:
    """Keys in plain text."""

    tenants: Mapping[str, TenantSettings]
    admin_key: str = "admin-key"
    scopes: Mapping[str, Sequence[Scope]] = field(default_factory=dict)
    """By key; every scope where none are named."""

    def caller(self, key: str) -> Caller | None:
        tenant = self.tenants.get(key)
        if tenant is None:
            return None
        return Caller(tenant, seeded_key_id(hash_key(key)), frozenset(self.scopes.get(key, ALL_SCOPES)))

    def is_admin(self, key: str) -> bool:
        return key == self.admin_key

    def tenant_of_id(self, tenant: str) -> TenantSettings | None:
        return next((item for item in self.tenants.values() if item.id == tenant), None)


@dataclass(frozen=True, slots=True)
class Observation:
    """One counted request."""

    method: str
    route: str
    status: int
    duration_s: float


@dataclass
class FakeMetrics:
    """Keeps every observation."""

    observations: list[Observation] = field(default_factory=list)

    def observe_request(self, *, method: str, route: str, status: int, duration_s: float) -> None:
        self.observations.append(Observation(method, route, status, duration_s))

    def render(self) -> str:
        return f"# TYPE coloq_requests counter\ncoloq_requests_total {len(self.observations)}\n"


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """Serve `app` on a free loopback port, in a thread of its own; yields its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
