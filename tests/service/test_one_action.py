"""One user action is one generation and one training sample, whatever a platform does: the real agent, journal and
store, with a fake engine."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from agent.completion import Completion
from agent.config import AgentConfig
from agent.contract import LanguageContract
from agent.fakes import CharEncoder, FakeEngine, FakeRanker, FixedDetector
from agent.ports import GenerateRequest
from agent.prompt import PromptLibrary
from agent.writer import ContentAgent, TenantLanguages
from service.config import JobsConfig, NodeConfig, StoreConfig
from service.http.agent_node import AgentNode
from service.http.app import create_app
from service.http.content_executor import ContentExecutor
from service.http.fakes import FAKE_TENANT, FakeAuthenticator, FakeMetrics
from service.jobs.desk import JobDesk
from service.jobs.fakes import RememberedEvents
from service.jobs.records import JobState, Lane, Order
from service.jobs.store import RedisJobStore
from service.journal import RedisJournal
from service.store import Store
from service.tenants import Tenants

BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}


class SlowEngine(FakeEngine):
    """Answers once it may."""

    def __init__(self) -> None:
        super().__init__(lambda _: "Hallo Welt.")
        self.may_answer = asyncio.Event()

    async def generate(self, request: GenerateRequest) -> Completion:
        completion = await super().generate(request)
        await self.may_answer.wait()
        return completion


@pytest.fixture
def engine() -> SlowEngine:
    return SlowEngine()


@pytest.fixture
def journal(store: Store) -> RedisJournal:
    return RedisJournal(store, StoreConfig(held_out_share=0.0))


def raised(tenant: str, error: Exception) -> None:
    raise error


@pytest.fixture
def agent(engine: SlowEngine, journal: RedisJournal) -> ContentAgent:
    return ContentAgent(
        engine,
        CharEncoder(),
        PromptLibrary.load(),
        LanguageContract(FixedDetector({"hallo": "de"})),
        FakeRanker(),
        journal,
        TenantLanguages([FAKE_TENANT]),
        raised,
    )


@pytest.fixture
def executor(agent: ContentAgent) -> ContentExecutor:
    return ContentExecutor(agent, Tenants.of([FAKE_TENANT]), AgentConfig())


@pytest_asyncio.fixture
async def desk(store: Store, executor: ContentExecutor) -> AsyncIterator[JobDesk]:
    desk = JobDesk(RedisJobStore(store, JobsConfig()), executor, RememberedEvents(), JobsConfig(), sole_user=True)
    async with desk.running():
        yield desk


@pytest_asyncio.fixture
async def caller(agent: ContentAgent, desk: JobDesk) -> AsyncIterator[httpx.AsyncClient]:
    node = AgentNode([FAKE_TENANT])
    node.content, node.jobs = agent, desk
    app = create_app(node, FakeAuthenticator({"tenant-key": FAKE_TENANT}), NodeConfig(), FakeMetrics())
    headers = {"Authorization": "Bearer tenant-key"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://node", headers=headers) as client:
        yield client


async def num_samples(journal: RedisJournal) -> int:
    """Episodes that tuning can draw."""
    return len(await journal.claim([], 100, seed=1))


async def test_fifty_parallel_posts_of_one_key(
    caller: httpx.AsyncClient, agent: ContentAgent, engine: SlowEngine, journal: RedisJournal
) -> None:
    """One generation, one journal row, one reply for all."""
    headers = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}
    calls = [asyncio.create_task(caller.post("/v1/content", json=BRIEF, headers=headers)) for _ in range(50)]
    await asyncio.sleep(0.2)
    engine.may_answer.set()
    responses = await asyncio.gather(*calls)
    assert {response.status_code for response in responses} == {200}
    assert len({response.text for response in responses}) == 1
    assert len(engine.requests) == 1
    await agent.drain()
    assert sum((await journal.count()).values()) == 1


async def test_nine_calls_of_make_that_time_out(
    caller: httpx.AsyncClient, agent: ContentAgent, engine: SlowEngine, journal: RedisJournal
) -> None:
    """The call and Make's 8 retries, each cut off by the caller while it is held; then the reply is there, and a tenth
    call gets it. One generation, one training sample."""
    headers = {"X-Idempotency-Mode": "body"}
    for _ in range(9):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await caller.post("/v1/content", json=BRIEF, headers=headers)
    engine.may_answer.set()
    response = await caller.post("/v1/content", json=BRIEF, headers=headers)
    assert (response.status_code, response.headers["Idempotency-Replayed"]) == (200, "true")
    assert response.json()["text"] == "Hallo Welt."
    assert len(engine.requests) == 1
    await agent.drain()
    assert await num_samples(journal) == 1


async def test_a_call_that_became_a_job(
    caller: httpx.AsyncClient, desk: JobDesk, engine: SlowEngine, journal: RedisJournal
) -> None:
    """The reply is journalled under the id that the caller was given with its 202."""
    response = await caller.post("/v1/content", json=BRIEF, headers={"Prefer": "wait=1"})
    assert response.status_code == 202
    assert await num_samples(journal) == 0
    engine.may_answer.set()
    await asyncio.wait_for(desk.until_final("acme", response.json()["id"]), 5)
    assert await journal.get("acme", response.headers["X-Request-Id"]) is not None
    assert len(engine.requests) == 1


async def test_replies_come_while_the_store_takes_no_write(
    caller: httpx.AsyncClient, agent: ContentAgent, engine: SlowEngine, journal: RedisJournal, store: Store
) -> None:
    """A disk that syncs slowly holds up no plain call; every episode is there once it has come round."""
    engine.may_answer.set()
    assert (await caller.post("/v1/content", json=BRIEF)).status_code == 200
    await agent.drain()
    await store.redis.client_pause(2000, all=False)
    durations_s = []
    for _ in range(20):
        began_s = time.perf_counter()
        assert (await caller.post("/v1/content", json=BRIEF)).status_code == 200
        durations_s.append(time.perf_counter() - began_s)
    assert sum((await journal.count()).values()) == 1
    sys.stdout.write(f"slowest of 20 replies: {1000 * max(durations_s):.0f} ms\n")
    assert max(durations_s) < 0.5
    await agent.drain()
    assert sum((await journal.count()).values()) == 21


async def test_two_tries_are_one_training_sample(
    engine: SlowEngine, journal: RedisJournal, store: Store, executor: ContentExecutor
) -> None:
    """A node died after it journalled the reply and before it stored the result: the second try's reply is the job's
    result, and the journal keeps one episode of that request."""
    engine.may_answer.set()
    jobs = RedisJobStore(store, JobsConfig())
    order = Order("acme", "/v1/content", json.dumps(BRIEF), "req_1")
    submission = await jobs.submit(order, Lane.HELD, "dead-node")
    assert submission.claim is not None
    await jobs.begin(submission.claim)
    await executor.execute(order)
    desk = JobDesk(jobs, executor, RememberedEvents(), JobsConfig(), sole_user=True)
    async with desk.running():
        job = await asyncio.wait_for(desk.until_final("acme", submission.job_id), 5)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)
    assert len(engine.requests) == 2
    assert await num_samples(journal) == 1
