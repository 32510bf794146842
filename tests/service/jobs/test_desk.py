"""A node's jobs: carried out, tried again, taken over, cancelled, announced. In memory, with scripted work."""

import asyncio
from collections.abc import Callable

import pytest

from agent.errors import NotFound, StoreError
from service.config import JobsConfig
from service.idempotency import IdempotencyKey
from service.jobs.desk import JobDesk
from service.jobs.fakes import MemoryJobStore, RememberedEvents, ScriptedExecutor
from service.jobs.records import Answer, Job, JobState, Lane, Order, Submission

DONE = Answer(200, '{"text":"Guten Tag."}')
ORDER = Order("acme", "/v1/content", "{}", "req_1")


class Stage:
    """One store, and as many nodes as a test makes."""

    def __init__(self) -> None:
        self.store = MemoryJobStore()
        self.events = RememberedEvents()
        self.gate = asyncio.Event()
        self.failures: list[Exception] = []
        self.config = JobsConfig(max_attempts=3, concurrency=2, lease_s=0.2)
        self.executor = ScriptedExecutor(self.work)

    async def work(self, order: Order) -> Answer:
        if self.failures:
            raise self.failures.pop(0)
        await self.gate.wait()
        return DONE

    def desk(self) -> JobDesk:
        return JobDesk(self.store, self.executor, self.events, self.config, sole_user=True)

    async def job(self, job_id: str) -> Job:
        job = await self.store.get("acme", job_id)
        assert job is not None
        return job


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr("service.jobs.runner._FIRST_BACKOFF_S", 0.01)
    return Stage()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not happened():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_accepted_order_is_carried_out_and_announced(stage: Stage, at_once: bool) -> None:
    """Held or queued: one execution, one result, one announcement with the final job."""
    desk = stage.desk()
    submission = await desk.accept(ORDER, at_once=at_once)
    stage.gate.set()
    job = await asyncio.wait_for(desk.until_final("acme", submission.job_id), 5)
    assert (job.state, job.answer, job.attempts) == (JobState.SUCCEEDED, DONE, 1)
    assert stage.executor.orders == [ORDER]
    await until(lambda: stage.events.jobs == [job])
    assert await stage.store.take_over(Lane.FINISHED, "other", idle_s=0) == []


async def test_a_node_carries_out_so_many_queued_jobs_at_once(stage: Stage) -> None:
    """concurrency is 2: of 5 queued jobs 2 run, and a held call's job runs beside them."""
    desk = stage.desk()
    for _ in range(5):
        await desk.accept(ORDER, at_once=False)
    await until(lambda: len(stage.executor.orders) == 2)
    held = await desk.accept(ORDER, at_once=True)
    await until(lambda: len(stage.executor.orders) == 3)
    assert (await stage.job(held.job_id)).state is JobState.RUNNING
    stage.gate.set()
    await until(lambda: len(stage.events.jobs) == 6)
    assert len(stage.executor.orders) == 6


async def test_fifty_calls_of_one_key_are_one_execution(stage: Stage) -> None:
    """All 50 get the same answer."""
    desk = stage.desk()
    key = IdempotencyKey("k", "f", 60.0)

    async def call() -> Job:
        submission = await desk.accept(ORDER, key, at_once=True)
        return await desk.until_final("acme", submission.job_id)

    calls = [asyncio.create_task(call()) for _ in range(50)]
    await until(lambda: bool(stage.executor.orders))
    stage.gate.set()
    answers = {(job.id, job.answer.body) for job in await asyncio.gather(*calls) if job.answer is not None}
    assert len(answers) == 1
    assert len(stage.executor.orders) == 1


async def test_a_failure_of_the_node_is_tried_again(stage: Stage) -> None:
    """Two failures, then the answer: three tries under the same request id."""
    stage.failures = [RuntimeError("engine"), RuntimeError("engine")]
    stage.gate.set()
    desk = stage.desk()
    submission = await desk.accept(ORDER, at_once=False)
    job = await asyncio.wait_for(desk.until_final("acme", submission.job_id), 5)
    assert (job.state, job.attempts, job.dead_reason) == (JobState.SUCCEEDED, 3, None)
    assert [order.request_id for order in stage.executor.orders] == ["req_1"] * 3


async def test_a_job_is_given_up_after_its_last_try(stage: Stage) -> None:
    """max_attempts is 3: the third failure is its result, and the job says that it was given up."""
    stage.failures = [RuntimeError("engine")] * 9
    desk = stage.desk()
    submission = await desk.accept(ORDER, at_once=False)
    job = await asyncio.wait_for(desk.until_final("acme", submission.job_id), 5)
    assert (job.state, job.attempts) == (JobState.FAILED, 3)
    assert job.answer is not None
    assert job.answer.body == '{"code":"RuntimeError"}'
    assert job.dead_reason == "given up after 3 tries"
    assert len(stage.failures) == 6


async def test_a_refusal_is_not_tried_again(stage: Stage) -> None:
    """What is wrong with the order stays wrong: one try, and the job is not dead but answered."""
    stage.failures = [ValueError("brief")] * 2
    desk = stage.desk()
    submission = await desk.accept(ORDER, at_once=False)
    job = await asyncio.wait_for(desk.until_final("acme", submission.job_id), 5)
    assert (job.state, job.attempts, job.dead_reason) == (JobState.FAILED, 1, None)
    assert job.answer is not None
    assert job.answer.status == 422


async def test_a_job_that_ends_its_node_each_time_is_given_up(stage: Stage) -> None:
    """Three tries ended with their node; the fourth node does not begin a fourth execution."""
    submission = await stage.store.submit(ORDER, Lane.HELD, "n1")
    assert submission.claim is not None
    for _ in range(3):
        await stage.store.begin(submission.claim)
    desk = stage.desk()
    async with desk.running():
        job = await asyncio.wait_for(desk.until_final("acme", submission.job_id), 5)
    assert job.state is JobState.FAILED
    assert job.answer is not None
    assert job.answer.body == '{"code":"JobAbandoned"}'
    assert job.dead_reason == "given up after 3 tries"
    assert stage.executor.orders == []


async def test_adopted_work_is_not_begun_again(stage: Stage) -> None:
    """The work that a held call began gives the job's result."""
    desk = stage.desk()
    work = asyncio.create_task(stage.executor.execute(ORDER))
    await until(lambda: bool(stage.executor.orders))
    job_id = await desk.adopt(ORDER, work)
    assert (await desk.promised("acme", job_id)).state in (JobState.QUEUED, JobState.RUNNING)
    assert stage.store.num_syncs == 1
    stage.gate.set()
    job = await asyncio.wait_for(desk.until_final("acme", job_id), 5)
    assert (job.answer, job.attempts) == (DONE, 1)
    assert len(stage.executor.orders) == 1


async def test_cancelling_stops_the_work_and_frees_its_room(stage: Stage) -> None:
    """The work is cancelled at once, the job keeps that as its result, subscribers hear, and the next job starts."""
    desk = stage.desk()
    first, _, third = [await desk.accept(ORDER, at_once=False) for _ in range(3)]
    await until(lambda: len(stage.executor.orders) == 2)
    job = await desk.cancel("acme", first.job_id)
    assert job.state is JobState.CANCELLED
    await until(lambda: stage.executor.num_cancelled == 1)
    await until(lambda: len(stage.executor.orders) == 3)
    assert (await stage.job(third.job_id)).state is JobState.RUNNING
    stage.gate.set()
    await until(lambda: len(stage.events.jobs) == 3)
    assert await desk.cancel("acme", first.job_id) == job
    assert (await stage.job(first.job_id)).state is JobState.CANCELLED


async def test_a_queued_job_that_is_cancelled_never_starts(stage: Stage) -> None:
    """It leaves the queue with its entry."""
    desk = stage.desk()
    first, second, third = [await desk.accept(ORDER, at_once=False) for _ in range(3)]
    await until(lambda: len(stage.executor.orders) == 2)
    await desk.cancel("acme", third.job_id)
    stage.gate.set()
    for submission in (first, second):
        await desk.until_final("acme", submission.job_id)
    await asyncio.sleep(0.05)
    assert len(stage.executor.orders) == 2


async def test_cancelling_another_tenants_job_is_not_found(stage: Stage) -> None:
    """And it goes on."""
    desk = stage.desk()
    submission = await desk.accept(ORDER, at_once=True)
    with pytest.raises(NotFound):
        await desk.cancel("globex", submission.job_id)
    assert not (await stage.job(submission.job_id)).state.final


async def test_a_cancel_on_one_node_stops_the_work_of_another(stage: Stage) -> None:
    """The beat of the node that has the job finds out that it is final."""
    desk = stage.desk()
    async with desk.running():
        submission = await desk.accept(ORDER, at_once=True)
        await until(lambda: bool(stage.executor.orders))
        await stage.desk().cancel("acme", submission.job_id)
        await until(lambda: stage.executor.num_cancelled == 1)


async def test_a_node_that_stops_leaves_its_jobs_to_the_next_start(stage: Stage) -> None:
    """The work is cancelled, the job is queued again, its try does not count; the next node finishes it."""
    first = stage.desk()
    async with first.running():
        held = await first.accept(ORDER, at_once=True)
        queued = [await first.accept(ORDER, at_once=False) for _ in range(3)]
        await until(lambda: len(stage.executor.orders) == 3)
    jobs = [await stage.job(submission.job_id) for submission in (held, *queued)]
    assert [(job.state, job.attempts) for job in jobs] == [(JobState.QUEUED, 0)] * 4
    stage.gate.set()
    second = stage.desk()
    async with second.running():
        for job in jobs:
            final = await asyncio.wait_for(second.until_final("acme", job.id), 5)
            assert (final.state, final.attempts) == (JobState.SUCCEEDED, 1)


async def test_a_subscriber_hears_of_a_job_whose_node_died_before_it_told(stage: Stage) -> None:
    """The result was stored, the announcement was not made: the next start makes it."""
    submission = await stage.store.submit(ORDER, Lane.HELD, "n1")
    await stage.store.finish("acme", submission.job_id, JobState.SUCCEEDED, DONE)
    await stage.store.take(Lane.FINISHED, "n1", 1)
    async with stage.desk().running():
        await until(lambda: [job.id for job in stage.events.jobs] == [submission.job_id])


async def test_a_subscriber_that_fails_hears_again(stage: Stage) -> None:
    """After the lease of 0.2 s; the job's result is not touched by it."""
    stage.events.error = RuntimeError("receiver")
    stage.gate.set()
    desk = stage.desk()
    async with desk.running():
        submission = await desk.accept(ORDER, at_once=True)
        assert (await desk.until_final("acme", submission.job_id)).state is JobState.SUCCEEDED
        await asyncio.sleep(0.02)
        stage.events.error = None
        await until(lambda: [job.id for job in stage.events.jobs] == [submission.job_id])


async def test_a_result_waits_for_a_store_that_is_away(stage: Stage) -> None:
    """The work ends while the store is down: its result is written when the store is back, without a second try."""
    desk = stage.desk()
    submission = await desk.accept(ORDER, at_once=True)
    await until(lambda: bool(stage.executor.orders))
    stage.store.failure = StoreError("down")
    stage.gate.set()
    waiting = asyncio.create_task(desk.until_final("acme", submission.job_id))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    stage.store.failure = None
    job = await asyncio.wait_for(waiting, 5)
    assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)
    assert len(stage.executor.orders) == 1


@pytest.mark.parametrize("failure", [StoreError("down"), KeyError("a defect")])
async def test_a_watching_node_outlives_a_store_that_fails(stage: Stage, failure: Exception) -> None:
    """Away or broken: queued jobs are taken once it answers again."""
    desk = stage.desk()
    async with desk.running():
        await asyncio.sleep(0.02)
        stage.store.failure = failure
        await asyncio.sleep(0.15)
        stage.store.failure = None
        await stage.store.submit(ORDER, Lane.QUEUED, "elsewhere")
        await until(lambda: bool(stage.executor.orders))


async def test_an_unknown_job_is_not_found(stage: Stage) -> None:
    """From every question."""
    desk = stage.desk()
    for question in (desk.get, desk.cancel, desk.until_final):
        with pytest.raises(NotFound, match="there is no job job_9"):
            await question("acme", "job_9")


async def test_a_job_that_cannot_be_read_takes_nobodys_place(stage: Stage) -> None:
    """With room for two, two of them let the third be carried out. Once they can be read they are carried out too, at
    the next lease and as their first try."""
    stage.gate.set()
    desk = stage.desk()
    ids = [(await stage.store.submit(ORDER, Lane.QUEUED, "elsewhere")).job_id for _ in range(3)]
    stage.store.unreadable |= set(ids[:2])
    async with desk.running():
        assert (await asyncio.wait_for(desk.until_final("acme", ids[2]), 5)).state is JobState.SUCCEEDED
        assert len(stage.executor.orders) == 1
        stage.store.unreadable.clear()
        for job_id in ids[:2]:
            job = await asyncio.wait_for(desk.until_final("acme", job_id), 5)
            assert (job.state, job.attempts) == (JobState.SUCCEEDED, 1)


async def test_a_finished_job_that_cannot_be_read_silences_no_other(stage: Stage) -> None:
    """Its event waits; those behind it are told."""
    ids = [(await stage.store.submit(ORDER, Lane.HELD, "elsewhere")).job_id for _ in range(2)]
    for job_id in ids:
        await stage.store.finish("acme", job_id, JobState.SUCCEEDED, DONE)
    stage.store.unreadable.add(ids[0])
    async with stage.desk().running():
        await until(lambda: [job.id for job in stage.events.jobs] == ids[1:])
        stage.store.unreadable.clear()
        await until(lambda: [job.id for job in stage.events.jobs] == ids[::-1])


class SlowStore(MemoryJobStore):
    """Its answers take a while to come back."""

    async def submit(self, order: Order, lane: Lane, consumer: str, key: IdempotencyKey | None = None) -> Submission:
        submission = await super().submit(order, lane, consumer, key)
        await asyncio.sleep(0.05)
        return submission


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_order_whose_call_is_cancelled_while_it_is_accepted_is_carried_out(
    stage: Stage, at_once: bool
) -> None:
    """The store has it, and nobody else would start it before its lease runs out."""
    stage.store = SlowStore()
    desk = stage.desk()
    call = asyncio.create_task(desk.accept(ORDER, at_once=at_once))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: stage.executor.orders == [ORDER])
    await desk.close()
