"""Two nodes on one store: what one has in hand the other leaves alone, until the first is gone."""

import asyncio
from collections.abc import Callable

import pytest

from service.config import JobsConfig
from service.jobs.desk import JobDesk
from service.jobs.fakes import RememberedEvents, ScriptedExecutor
from service.jobs.records import Answer, JobState, Lane, Order
from service.jobs.store import RedisJobStore
from service.store import Store

DONE = Answer(200, '{"text":"Guten Tag."}')
ORDER = Order("acme", "/v1/content", "{}", "req_1")
CONFIG = JobsConfig(lease_s=0.4, concurrency=4)


class TwoNodes:
    """Desks of one store, each with work that takes ``work_s``."""

    def __init__(self, store: Store) -> None:
        self.store = RedisJobStore(store, CONFIG)
        self.work_s = 0.0
        self.executors = [ScriptedExecutor(self.work), ScriptedExecutor(self.work)]
        self.events = RememberedEvents()
        self.first, self.second = (JobDesk(self.store, each, self.events, CONFIG) for each in self.executors)

    async def work(self, order: Order) -> Answer:
        await asyncio.sleep(self.work_s)
        return DONE

    @property
    def num_executions(self) -> list[int]:
        return [len(executor.orders) for executor in self.executors]


@pytest.fixture
def nodes(any_store: Store) -> TwoNodes:
    return TwoNodes(any_store)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)


async def test_work_longer_than_the_lease_is_left_alone(nodes: TwoNodes) -> None:
    """1.2 s of work under a lease of 0.4 s that is renewed: one execution, one announcement."""
    nodes.work_s = 1.2
    async with nodes.first.running(), nodes.second.running():
        submission = await nodes.first.accept(ORDER, at_once=True)
        job = await asyncio.wait_for(nodes.second.until_final("acme", submission.job_id), 5)
        assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
        await until(lambda: len(nodes.events.jobs) == 1)
        await asyncio.sleep(0.6)
    assert nodes.num_executions == [1, 0]
    assert len(nodes.events.jobs) == 1


async def test_a_dead_nodes_job_is_taken_over_after_its_lease(nodes: TwoNodes) -> None:
    """Not before: another node cannot know that it is dead."""
    submission = await nodes.store.submit(ORDER, Lane.HELD, "dead")
    assert submission.claim is not None
    await nodes.store.begin(submission.claim)
    began_s = asyncio.get_running_loop().time()
    async with nodes.second.running():
        job = await asyncio.wait_for(nodes.second.until_final("acme", submission.job_id), 5)
    assert asyncio.get_running_loop().time() - began_s >= CONFIG.lease_s - 0.05
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 2)


async def test_a_node_lets_go_of_what_another_took_over(nodes: TwoNodes) -> None:
    """The first node stalled past its lease; its work is stopped when it wakes, and the job has one result."""
    nodes.work_s = 30.0
    submission = await nodes.first.accept(ORDER, at_once=True)  # no beat: it is not `running`
    await until(lambda: nodes.num_executions == [1, 0])
    async with nodes.second.running():
        await until(lambda: nodes.num_executions == [1, 1])
        async with nodes.first.running():
            await until(lambda: nodes.executors[0].num_cancelled == 1)
        assert nodes.executors[1].num_cancelled == 0
        job = await nodes.first.get("acme", submission.job_id)
        assert (job.state, job.attempts) == (JobState.RUNNING, 2)


async def test_queued_jobs_are_shared(nodes: TwoNodes) -> None:
    """concurrency is 4 on each node: of 8 jobs that the first one accepts the second takes some, each runs once."""
    nodes.work_s = 0.5
    async with nodes.first.running(), nodes.second.running():
        for _ in range(8):
            await nodes.first.accept(ORDER, at_once=False)
        await until(lambda: len(nodes.events.jobs) == 8)
    assert sum(nodes.num_executions) == 8
    assert min(nodes.num_executions) > 0
