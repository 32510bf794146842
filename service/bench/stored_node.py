"""A node without a model, for benches: HTTP, agents, fair queue, jobs, webhooks, journal and store are the product's
own, the engine is a script in this process and keeps nothing.

    python -P -m service.bench.stored_node FOLDER       FOLDER/key.hash names the tenant's key; prints `Ready: URL`
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvloop

from agent.chat import ChatAgent
from agent.completion import Completion
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.fakes import CharEncoder, FakeEngine, FakeRanker
from agent.language import FastTextDetector
from agent.ports import GenerateRequest
from agent.prompt import PromptLibrary
from agent.writer import ContentAgent
from rewards.panel import build_panel
from service.bench.failure import BenchFailed
from service.canary.canaries import Canaries
from service.config import NodeConfig, ServerConfig
from service.fair_engine import FairEngine
from service.fair_queue import FairQueue
from service.feedback.assembly import NodeFeedback, node_feedback
from service.http.content_executor import ContentExecutor
from service.http.fake_canaries import canaries_of
from service.http.fake_tuning import BASE_POLICY, FakePolicies, FakeTuning
from service.http.fakes import READY, registry_of
from service.http.job_webhooks import JobWebhooks
from service.http.keys import NodeKeys
from service.http.ports import Health
from service.jobs.announcer import LoggedEvents, Subscribers
from service.jobs.desk import JobDesk
from service.jobs.store import RedisJobStore
from service.journal import RedisJournal
from service.metering import MeteredChat, MeteredContent, MeteredJobs
from service.reward_models.fakes import FakeRewardModels
from service.secrets import AdminKey, hash_key
from service.serve import run_until_told
from service.store import Store, open_store
from service.tasks import running
from service.telemetry import Metrics, configure_logging
from service.tenancy.audit import RedisAudit
from service.tenancy.limits import Limiter
from service.tenancy.record import ALL_SCOPES, KeyRecord, Origin, TenantRecord
from service.tenancy.registry import TenantRegistry
from service.tenancy.usage import DailyUsage, RedisUsageStore
from service.tenant_policies import TenantPolicies
from service.tenants import Tenants
from service.webhooks.assembly import Webhooks, open_webhooks

TENANT = "bench"
LANGUAGES = ("en", "de")
READY_LINE = "Ready: "
KEY_NAME = "key.hash"
_NUM_SLOTS = 64


class ForgetfulEngine(FakeEngine):
    """A FakeEngine that keeps no requests."""

    def __init__(self) -> None:
        super().__init__(lambda _: "Our new bicycle bell is here, and it rings.")

    async def generate(self, request: GenerateRequest) -> Completion:
        """See Engine.generate."""
        try:
            return await super().generate(request)
        finally:
            self.requests.clear()


@dataclass(frozen=True, slots=True)
class StoredNode:
    """service.serve.ServableNode without an engine process or a trainer."""

    content: MeteredContent
    chat: MeteredChat
    tuning: FakeTuning
    policies: FakePolicies
    reward_models: FakeRewardModels
    canaries: Canaries
    tenant_policies: TenantPolicies
    jobs: JobDesk
    webhooks: Webhooks
    feedback: NodeFeedback
    tenancy: TenantRegistry
    limits: Limiter
    audit: RedisAudit
    keys: NodeKeys
    metrics: Metrics
    admin: AdminKey
    gave_up: "asyncio.Future[str]"

    async def health(self) -> Health:
        """See NodePorts.health."""
        return READY


@asynccontextmanager
async def open_stored_node(folder: Path, config: NodeConfig, key_hash: str) -> AsyncIterator[StoredNode]:
    """A node with one tenant, on an embedded store in ``folder``."""
    metrics = Metrics()
    async with (
        open_store(config.store, folder) as store,
        open_webhooks(store, config.webhooks, metrics.webhook_attempted) as webhooks,
    ):
        usage = DailyUsage(RedisUsageStore(store))
        node = _assemble(config, store, webhooks, metrics, usage, _tenants(key_hash))
        async with node.jobs.running(), running(usage.run(), name="usage"):
            yield node
        await node.content.agent.drain()


def _tenants(key_hash: str) -> Tenants:
    settings = TenantSettings(id=TENANT, languages={code: LanguageSettings() for code in LANGUAGES})
    now = datetime.now(UTC)
    key = KeyRecord("key_bench", "bench", key_hash, ALL_SCOPES, now)
    return Tenants([TenantRecord(settings, Origin.FILE, now, now, (key,))])


def _assemble(
    config: NodeConfig, store: Store, webhooks: Webhooks, metrics: Metrics, usage: DailyUsage, tenants: Tenants
) -> StoredNode:
    limits = Limiter(usage)
    engine = FairEngine(ForgetfulEngine(), FairQueue(lambda: _NUM_SLOTS, tenants.share), limits.charge)
    contract, encoder = LanguageContract(FastTextDetector()), CharEncoder()
    journal = RedisJournal(store, config.store)
    agent = ContentAgent(
        engine, encoder, PromptLibrary.load(), contract, FakeRanker(), journal, tenants, _not_journalled
    )
    content = MeteredContent(agent, metrics)
    panel = build_panel(config.rewards, tenants.all, contract)
    jobs = JobDesk(
        RedisJobStore(store, config.jobs),
        ContentExecutor(content, tenants, config.agent),
        Subscribers(JobWebhooks(webhooks.deliveries), LoggedEvents(), MeteredJobs(metrics)),
        config.jobs,
        sole_user=True,
        occupy=lambda order: limits.occupy(order.tenant, order.key_id),
    )
    admin = AdminKey(hash_key("nobody's"))
    policies = FakePolicies({0: BASE_POLICY})
    canaries, tenant_policies, _ = canaries_of(policies, LANGUAGES)
    return StoredNode(
        content=content,
        chat=MeteredChat(ChatAgent(engine, encoder, contract, agent.keeper, tenants), metrics),
        tuning=FakeTuning(),
        policies=policies,
        reward_models=FakeRewardModels(),
        canaries=canaries,
        tenant_policies=tenant_policies,
        jobs=jobs,
        webhooks=webhooks,
        feedback=node_feedback(config, store, journal, jobs, tenants, contract, panel, metrics),
        tenancy=registry_of([record.settings for record in tenants.records]),
        limits=limits,
        audit=RedisAudit(store),
        keys=NodeKeys(tenants, admin),
        metrics=metrics,
        admin=admin,
        gave_up=asyncio.get_running_loop().create_future(),
    )


def _not_journalled(tenant: str, error: Exception) -> None:
    raise BenchFailed(f"every episode of tenant {tenant} must be journalled, got {type(error).__name__}: {error}")


def main() -> None:
    """Serve until SIGTERM."""
    folder = Path(sys.argv[1])
    config = NodeConfig(server=ServerConfig(port=0))
    key_hash = (folder / KEY_NAME).read_text(encoding="utf-8")
    configure_logging("warning", "json")
    open_node = partial(open_stored_node, folder, config, key_hash)
    uvloop.run(run_until_told(config, open_node, partial(print, flush=True)))


if __name__ == "__main__":
    main()
