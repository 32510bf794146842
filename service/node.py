"""A node: everything of one process pair, wired together.

    data folder ─ store ─ journal, ledger
    engine process ─ learner ─ adapter slots ─ publisher
    content agent · panel · tuning loop and runs

This module imports vLLM (through service.engine): set the environment first (service.engine_environment).
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import structlog

from agent.contract import LanguageContract
from agent.errors import StoreError
from agent.language import FastTextDetector
from agent.prompt import PromptLibrary
from agent.writer import ContentAgent, TenantLanguages
from rewards.panel import Panel, build_panel
from rewards.second_opinion import LangdetectDetector
from service.config import NodeConfig
from service.config_file import check_languages
from service.data_dir import locked_data_dir
from service.encoder import ChatEncoder
from service.engine import WORKER, VllmEngine
from service.engine_trainer import EngineTrainer
from service.http.keys import NodeKeys
from service.http.ports import Health
from service.journal import RedisJournal
from service.ledger import Ledger
from service.metering import MeteredContent, NodeMetrics, count_run, watch_journal
from service.secrets import AdminKey, Secrets, admin_key
from service.store import Store, open_store
from service.supervised_engine import SupervisedEngine
from service.telemetry import Metrics
from service.tenants import Tenants
from trainer.adapters import AdapterSlots
from trainer.evaluation import Evaluator
from trainer.loop import TuningLoop
from trainer.parity import ParityProbe
from trainer.policy_folder import newest_version, policy_folder
from trainer.publication import Publisher
from trainer.rollout import RolloutSampler
from trainer.runs import TuningRuns

log = structlog.get_logger(__name__)

_CANCEL_S = 5.0
_CANDIDATE_SLOTS = 2
"""Adapter slots for the newest candidate and its successor, beside the active policy and those kept."""


@dataclass(frozen=True, slots=True)
class Node:
    """A running node; provides service.http.ports.NodePorts."""

    config: NodeConfig
    store: Store
    engine: SupervisedEngine
    journal: RedisJournal
    content: MeteredContent
    tuning: TuningRuns
    policies: Publisher
    metrics: NodeMetrics
    keys: NodeKeys
    admin: AdminKey

    @property
    def gave_up(self) -> "asyncio.Future[str]":
        """Resolved with the reason when the engine died too often to be started again."""
        return self.engine.gave_up

    async def health(self) -> Health:
        """Readiness of each part."""
        store = "ready"
        try:
            await self.store.ping()
        except StoreError:
            store = "unreachable"
        return Health(
            ready=self.engine.state == "ready",
            engine=self.engine.state,
            store=store,
            tuning=self.tuning.summary,
            policy_version=self.engine.active_version,
        )


@asynccontextmanager
async def open_node(config: NodeConfig, model: str, secrets: Secrets, *, worker: str = WORKER) -> AsyncIterator[Node]:
    """Start every part of a node, and stop them in reverse order at the end of the block.

    Args:
        model: the folder or Hugging Face id behind ``config.engine.model``.

    Raises:
        InvalidConfig: a tenant's language that the detector cannot tell, or a reward that cannot be made.
        StoreError: the data folder is in use, or the store does not answer.
        ModelError: the engine could not load the model.
    """
    contract = LanguageContract(await asyncio.to_thread(FastTextDetector))
    check_languages(config, contract.labels)
    panel = build_panel(config.rewards, config.tenants, contract)
    async with AsyncExitStack() as stack:
        data_dir = stack.enter_context(locked_data_dir(config.data_dir))
        admin = admin_key(data_dir, secrets.admin_key_hash)
        store = await stack.enter_async_context(open_store(config.store, data_dir, password=secrets.store_password))
        metrics = Metrics()
        engine = SupervisedEngine(config.engine, _launcher(config, model, worker), on_restart=metrics.engine_restarted)
        stack.push_async_callback(engine.stop)
        parts = _Parts(config, model, data_dir, contract, panel, store, engine, metrics)
        node = await parts.assemble(admin)
        await engine.start(node.policies.restore)
        stack.push_async_callback(node.content.agent.drain)
        stack.push_async_callback(node.tuning.close)
        stack.push_async_callback(_cancelled, asyncio.create_task(watch_journal(node.journal, metrics)))
        yield node


def _launcher(config: NodeConfig, model: str, worker: str) -> Callable[[], Awaitable[VllmEngine]]:
    return partial(
        VllmEngine.launch,
        model,
        config.engine,
        num_adapters=config.tuning.keep_adapters + 1 + _CANDIDATE_SLOTS,
        adapter_rank=config.tuning.adapter.rank,
        worker=worker,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a node is assembled from."""

    config: NodeConfig
    model: str
    data_dir: Path
    contract: LanguageContract
    panel: Panel
    store: Store
    engine: SupervisedEngine
    metrics: Metrics

    async def assemble(self, admin: AdminKey) -> Node:
        config, metrics = self.config, self.metrics
        tenants = Tenants(config.tenants)
        policies_root = self.data_dir / "policies"
        ledger = Ledger(self.store)
        now = datetime.now(UTC)
        await ledger.begin(now, last_version=newest_version(policies_root))
        await ledger.close_interrupted(now, "the node stopped during the run")
        journal = RedisJournal(self.store, config.store, on_corrupt=metrics.journal_corrupt)
        encoder = await asyncio.to_thread(ChatEncoder.load, self.model)
        publisher = self._publisher(ledger, encoder, policies_root)
        loop = self._loop(journal, ledger, publisher, policies_root)
        agent = ContentAgent(
            self.engine,
            encoder,
            PromptLibrary.load(),
            self.contract,
            journal,
            TenantLanguages(config.tenants),
            partial(_journal_failed, metrics),
        )
        return Node(
            config=config,
            store=self.store,
            engine=self.engine,
            journal=journal,
            content=MeteredContent(agent, metrics),
            tuning=TuningRuns(
                loop, ledger, config.tuning, tenants.languages, metrics.observe_step, partial(count_run, metrics)
            ),
            policies=publisher,
            metrics=NodeMetrics(metrics, self.engine),
            keys=NodeKeys(tenants, admin),
            admin=admin,
        )

    def _publisher(self, ledger: Ledger, encoder: ChatEncoder, root: Path) -> Publisher:
        trainer = EngineTrainer(self.engine)
        slots = AdapterSlots(
            trainer,
            self.engine,
            capacity=self.config.tuning.keep_adapters + 1 + _CANDIDATE_SLOTS,
            folder_of=partial(policy_folder, root),
        )
        probe = ParityProbe(self.engine, trainer, encoder, max_mean=self.config.tuning.parity_mean)
        return Publisher(trainer, slots, self.engine, ledger, probe, root, self.config.engine.model)

    def _loop(self, journal: RedisJournal, ledger: Ledger, publisher: Publisher, root: Path) -> TuningLoop:
        sampler = RolloutSampler(self.engine)
        evaluator = Evaluator(
            journal=journal,
            sampler=sampler,
            panel=self.panel,
            second_opinion=LanguageContract(LangdetectDetector()),
            temperature=self.config.agent.temperature,
            num_prompts=self.config.tuning.gate.num_prompts,
            margin=self.config.tuning.gate.margin,
            min_determined=self.config.tuning.gate.min_determined,
        )
        return TuningLoop(
            journal, sampler, self.panel, publisher.trainer, publisher.slots, ledger, publisher, evaluator, root
        )


def _journal_failed(metrics: Metrics, tenant: str, error: Exception) -> None:
    metrics.journal_failed(tenant)
    log.error("episode_not_journalled", tenant=tenant, reason=type(error).__name__)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    """Cancel a task and wait for its end, but not for ever: a library may swallow the cancellation."""
    task.cancel()
    await asyncio.wait({task}, timeout=_CANCEL_S)
