"""The job store's promises, on a Valkey, on a Redis and in memory."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from structlog.testing import capture_logs

from agent.errors import IdempotencyKeyReused, StoreError, UnreadableRecord
from service.config import JobsConfig, StoreConfig
from service.idempotency import IdempotencyKey
from service.jobs.fakes import MemoryJobStore
from service.jobs.ports import JobStore
from service.jobs.records import Answer, Claim, JobState, Lane, Order, Submission
from service.jobs.store import RedisJobStore
from service.store import Store, open_store

DONE = Answer(200, '{"text":"Guten Tag."}', headers={"X-Policy-Version": "3"})
BROKEN = Answer(500, '{"code":"generation_failed"}', "application/problem+json")
REFUSED = Answer(422, '{"code":"prompt_too_long"}', "application/problem+json")


def order(tenant: str = "acme", body: str = "{}") -> Order:
    return Order(tenant, "/v1/content", body, "req_1")


def key(name: str = "k", fingerprint: str = "f", *, answered_ttl_s: float | None = None) -> IdempotencyKey:
    return IdempotencyKey(name, fingerprint, 60.0, answered_ttl_s)


@pytest_asyncio.fixture(params=["memory", "valkey", "redis"])
async def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[JobStore]:
    """Each implementation of the port."""
    if request.param == "memory":
        yield MemoryJobStore()
        return
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None
    async with open_store(StoreConfig(url=url), tmp_path) as store:
        yield RedisJobStore(store, JobsConfig())


async def test_a_queued_job_is_handed_out_once_and_kept_with_its_result(jobs: JobStore) -> None:
    """Submitted, taken, begun, finished: each step is seen by who looks the job up, and its order is unchanged."""
    asked = Order("acme", "/v1/content", '{"kind":"create","text":"zażółć"}', "req_7", "https://example.com/hook")
    submission = await jobs.submit(asked, Lane.QUEUED, "n1")
    assert submission.created
    assert submission.claim is None
    job = await jobs.get("acme", submission.job_id)
    assert job is not None
    assert (job.order, job.state, job.attempts, job.answer) == (asked, JobState.QUEUED, 0, None)

    (claim,) = await jobs.take(Lane.QUEUED, "n1", 10)
    assert await jobs.take(Lane.QUEUED, "n2", 10) == []
    begun = await jobs.begin(claim)
    assert begun is not None
    assert (begun.state, begun.attempts) == (JobState.RUNNING, 1)
    assert begun.started_at is not None
    assert begun.started_at >= begun.created_at

    finished = await jobs.finish("acme", job.id, JobState.SUCCEEDED, DONE)
    assert finished is not None
    assert (finished.state, finished.answer) == (JobState.SUCCEEDED, DONE)
    assert await jobs.get("acme", job.id) == finished


async def test_a_held_job_belongs_to_who_handed_it_in(jobs: JobStore) -> None:
    """It is claimed in the same step: no other node can take it, not even in the middle of others' orders."""
    first = await jobs.submit(order(), Lane.HELD, "n1")
    second = await jobs.submit(order(), Lane.HELD, "n2")
    assert await jobs.take(Lane.HELD, "n3", 10) == []
    assert first.claim is not None
    assert second.claim is not None
    assert await jobs.renew([first.claim], "n1") == frozenset()
    assert await jobs.renew([first.claim, second.claim], "n2") == {first.job_id}


async def test_a_second_result_is_refused(jobs: JobStore) -> None:
    """The first one stands, and one event tells of it; a cancelled job takes no result either."""
    submission = await jobs.submit(order(), Lane.QUEUED, "n1")
    assert await jobs.finish("acme", submission.job_id, JobState.SUCCEEDED, DONE) is not None
    assert await jobs.finish("acme", submission.job_id, JobState.FAILED, REFUSED) is None
    job = await jobs.get("acme", submission.job_id)
    assert job is not None
    assert (job.state, job.answer) == (JobState.SUCCEEDED, DONE)
    assert [claim.job_id for claim in await jobs.take(Lane.FINISHED, "n1", 10)] == [submission.job_id]


async def test_a_finished_job_leaves_its_lane(jobs: JobStore) -> None:
    """Finished before anybody took it (cancelled), or while somebody had it: nobody gets the entry again."""
    waiting = await jobs.submit(order(), Lane.QUEUED, "n1")
    await jobs.finish("acme", waiting.job_id, JobState.CANCELLED, REFUSED)
    held = await jobs.submit(order(), Lane.HELD, "n1")
    assert held.claim is not None
    await jobs.finish("acme", held.job_id, JobState.SUCCEEDED, DONE)
    assert await jobs.take(Lane.QUEUED, "n2", 10) == []
    for lane in (Lane.QUEUED, Lane.HELD):
        assert await jobs.take_over(lane, "n2", idle_s=0) == []
    assert await jobs.renew([held.claim], "n1") == {held.job_id}
    assert await jobs.begin(held.claim) is None


async def test_what_a_dead_node_left_is_taken_over(jobs: JobStore) -> None:
    """The try that died with it was counted; the next one is the second."""
    await jobs.submit(order(), Lane.QUEUED, "n1")
    (lost,) = await jobs.take(Lane.QUEUED, "n1", 1)
    await jobs.begin(lost)
    (claim,) = await jobs.take_over(Lane.QUEUED, "n2", idle_s=0)
    assert claim == lost
    assert await jobs.renew([lost], "n1") == {lost.job_id}
    again = await jobs.begin(claim)
    assert again is not None
    assert again.attempts == 2


async def test_a_job_that_is_put_back_is_queued_again(jobs: JobStore) -> None:
    """After an orderly stop the try does not count; before another try it does. A final job stays what it is."""
    submission = await jobs.submit(order(), Lane.HELD, "n1")
    assert submission.claim is not None
    await jobs.begin(submission.claim)
    await jobs.put_back(submission.claim, uncount=True)
    job = await jobs.get("acme", submission.job_id)
    assert job is not None
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)
    await jobs.begin(submission.claim)
    await jobs.put_back(submission.claim, uncount=False)
    job = await jobs.get("acme", submission.job_id)
    assert job is not None
    assert (job.state, job.attempts) == (JobState.QUEUED, 1)
    await jobs.finish("acme", submission.job_id, JobState.CANCELLED, REFUSED)
    await jobs.put_back(submission.claim, uncount=True)
    job = await jobs.get("acme", submission.job_id)
    assert job is not None
    assert (job.state, job.attempts) == (JobState.CANCELLED, 1)


async def test_a_key_stands_for_one_job(jobs: JobStore) -> None:
    """Of 50 calls at once with one key and body one makes the job; another tenant's same key is another job."""
    submissions = await asyncio.gather(*(jobs.submit(order(), Lane.HELD, "n1", key()) for _ in range(50)))
    assert len({submission.job_id for submission in submissions}) == 1
    assert sum(submission.created for submission in submissions) == 1
    assert (await jobs.submit(order("globex"), Lane.HELD, "n1", key())).created
    assert (await jobs.submit(order(), Lane.HELD, "n1", key("another"))).created


async def test_a_key_with_another_body_is_refused(jobs: JobStore) -> None:
    """Whether the first call has its answer or not."""
    submission = await jobs.submit(order(), Lane.QUEUED, "n1", key())
    with pytest.raises(IdempotencyKeyReused, match="Idempotency-Key"):
        await jobs.submit(order(), Lane.QUEUED, "n1", key(fingerprint="another"))
    await jobs.finish("acme", submission.job_id, JobState.SUCCEEDED, DONE)
    with pytest.raises(IdempotencyKeyReused):
        await jobs.submit(order(), Lane.QUEUED, "n1", key(fingerprint="another"))


async def test_a_refused_order_may_be_mended_under_its_key(jobs: JobStore) -> None:
    """Nothing was written: the same body gets the refusal again, another one is a job of its own, which the key stands
    for from then on, also against the first body."""
    refused = await jobs.submit(order(), Lane.QUEUED, "n1", key())
    await jobs.finish("acme", refused.job_id, JobState.FAILED, REFUSED)
    assert await jobs.submit(order(), Lane.QUEUED, "n1", key()) == Submission(refused.job_id, created=False)
    mended = await jobs.submit(order(), Lane.QUEUED, "n1", key(fingerprint="mended"))
    assert mended.created
    with pytest.raises(IdempotencyKeyReused):
        await jobs.submit(order(), Lane.QUEUED, "n1", key())
    found = await jobs.of_key("acme", "k")
    assert found is not None
    assert found.id == mended.job_id


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.CANCELLED])
async def test_what_was_written_or_stopped_keeps_its_key_from_other_bodies(jobs: JobStore, state: JobState) -> None:
    """Only a failed job lets it go."""
    first = await jobs.submit(order(), Lane.QUEUED, "n1", key())
    await jobs.finish("acme", first.job_id, state, DONE)
    with pytest.raises(IdempotencyKeyReused):
        await jobs.submit(order(), Lane.QUEUED, "n1", key(fingerprint="another"))


@pytest.mark.parametrize(
    ("state", "answer", "is_freed"),
    [
        (JobState.SUCCEEDED, DONE, False),
        (JobState.FAILED, REFUSED, False),
        (JobState.CANCELLED, REFUSED, False),
        (JobState.FAILED, BROKEN, True),
    ],
)
async def test_only_a_failure_of_the_node_frees_the_key(
    jobs: JobStore, state: JobState, answer: Answer, is_freed: bool
) -> None:
    """What succeeded, was refused or cancelled is answered the same way again; what the node broke may be tried."""
    first = await jobs.submit(order(), Lane.QUEUED, "n1", key())
    await jobs.finish("acme", first.job_id, state, answer)
    again = await jobs.submit(order(), Lane.QUEUED, "n1", key())
    assert again.created is is_freed
    assert (again.job_id != first.job_id) is is_freed


async def test_tenants_see_their_own_jobs_only(jobs: JobStore) -> None:
    """Another tenant's id finds nothing, and its result cannot be written."""
    submission = await jobs.submit(order("acme"), Lane.QUEUED, "n1")
    assert await jobs.get("globex", submission.job_id) is None
    assert await jobs.finish("globex", submission.job_id, JobState.CANCELLED, REFUSED) is None
    assert (await jobs.page("globex", cursor=None, limit=10, state=None)).jobs == ()


async def test_pages_go_from_the_newest_to_the_oldest(jobs: JobStore) -> None:
    """7 jobs in pages of 3: 3, 3 and 1, each once; a job that comes meanwhile does not move the pages."""
    ids = []
    for _ in range(7):
        ids.append((await jobs.submit(order(), Lane.QUEUED, "n1")).job_id)
        await asyncio.sleep(0.002)  # ids sort by the millisecond
    first = await jobs.page("acme", cursor=None, limit=3, state=None)
    await jobs.submit(order(), Lane.QUEUED, "n1")
    second = await jobs.page("acme", cursor=first.next_cursor, limit=3, state=None)
    third = await jobs.page("acme", cursor=second.next_cursor, limit=3, state=None)
    assert [len(page.jobs) for page in (first, second, third)] == [3, 3, 1]
    assert [job.id for page in (first, second, third) for job in page.jobs] == ids[::-1]
    assert third.next_cursor is None


async def test_a_page_of_one_state_holds_no_other(jobs: JobStore) -> None:
    """Following the cursors to the end finds every job of the state: 2 of 5 are cancelled."""
    ids = []
    for index in range(5):
        ids.append((await jobs.submit(order(), Lane.QUEUED, "n1")).job_id)
        if index in (1, 2):
            await jobs.finish("acme", ids[-1], JobState.CANCELLED, REFUSED)
        await asyncio.sleep(0.002)
    found, cursor = [], None
    while True:
        page = await jobs.page("acme", cursor=cursor, limit=1, state=JobState.CANCELLED)
        found += [job.id for job in page.jobs]
        if (cursor := page.next_cursor) is None:
            break
    assert found == [ids[2], ids[1]]


async def test_an_announcement_stays_until_it_is_settled(jobs: JobStore) -> None:
    """Taken and not settled, it comes to the next node; settled, it is gone."""
    submission = await jobs.submit(order(), Lane.QUEUED, "n1")
    await jobs.finish("acme", submission.job_id, JobState.SUCCEEDED, DONE)
    assert len(await jobs.take(Lane.FINISHED, "n1", 10)) == 1
    (claim,) = await jobs.take_over(Lane.FINISHED, "n2", idle_s=0)
    assert claim.job_id == submission.job_id
    await jobs.settle(claim)
    assert await jobs.take_over(Lane.FINISHED, "n3", idle_s=0) == []


async def test_tenants_take_turns(store: Store) -> None:
    """acme has 10 queued jobs, globex 1: of the first 2 that are taken one is globex'."""
    jobs = RedisJobStore(store, JobsConfig())
    for _ in range(10):
        await jobs.submit(order("acme"), Lane.QUEUED, "n1")
    await jobs.submit(order("globex"), Lane.QUEUED, "n1")
    assert {claim.tenant for claim in await jobs.take(Lane.QUEUED, "n1", 2)} == {"acme", "globex"}
    assert len(await jobs.take(Lane.QUEUED, "n1", 100)) == 9


async def test_a_finished_job_expires(store: Store) -> None:
    """After its retention it is gone, from the list too; an open job has no end."""
    jobs = RedisJobStore(store, JobsConfig(retention_s=0.05, idempotency_ttl_s=0.05))
    finished = await jobs.submit(order(), Lane.QUEUED, "n1")
    waiting = await jobs.submit(order(), Lane.QUEUED, "n1")
    await jobs.finish("acme", finished.job_id, JobState.SUCCEEDED, DONE)
    await asyncio.sleep(0.1)
    assert await jobs.get("acme", finished.job_id) is None
    page = await jobs.page("acme", cursor=None, limit=10, state=None)
    assert [job.id for job in page.jobs] == [waiting.job_id]
    newest = await jobs.submit(order(), Lane.QUEUED, "n1")
    assert await store.redis.zrange("t:acme:jobs:index", 0, -1) == sorted([waiting.job_id, newest.job_id])


async def test_an_answered_body_is_forgotten_sooner(store: Store) -> None:
    """60 s become 0.05 s once a caller got its answer; a key that the caller chose keeps its life."""
    jobs = RedisJobStore(store, JobsConfig())
    by_body, by_caller = key("body", answered_ttl_s=0.05), key("caller")
    ids = [(await jobs.submit(order(), Lane.QUEUED, "n1", each)).job_id for each in (by_body, by_caller, None)]
    for job_id in ids:
        await jobs.answered("acme", job_id)
    await asyncio.sleep(0.1)
    again = await jobs.submit(order(), Lane.QUEUED, "n1", by_body)
    assert again.created
    assert not (await jobs.submit(order(), Lane.QUEUED, "n1", by_caller)).created
    # The key stands for another job by now: who still asks for the first one's answer does not shorten its life.
    await jobs.answered("acme", ids[0])
    await asyncio.sleep(0.1)
    assert (await jobs.submit(order(), Lane.QUEUED, "n1", by_body)).job_id == again.job_id


async def test_keys_begin_with_the_tenant(store: Store) -> None:
    """All but the set of tenants."""
    jobs = RedisJobStore(store, JobsConfig())
    submission = await jobs.submit(order(), Lane.QUEUED, "n1", key())
    await jobs.finish("acme", submission.job_id, JobState.SUCCEEDED, DONE)
    keys = {str(name) for name in await store.redis.keys("*")}
    assert {name for name in keys if not name.startswith("t:acme:")} == {"node:jobs:tenants"}


async def test_a_tenant_whose_keys_were_deleted_stops_nobody(store: Store) -> None:
    """One call finds the streams gone; the next serves the other tenant, and the first one may come back."""
    jobs = RedisJobStore(store, JobsConfig())
    await jobs.submit(order("acme"), Lane.QUEUED, "n1")
    await jobs.submit(order("globex"), Lane.QUEUED, "n1")
    await store.redis.delete(*await store.redis.keys("t:acme:*"))
    with pytest.raises(StoreError, match="NOGROUP"):
        await jobs.take(Lane.QUEUED, "n1", 10)
    assert [claim.tenant for claim in await jobs.take(Lane.QUEUED, "n1", 10)] == ["globex"]
    again = await jobs.submit(order("acme"), Lane.HELD, "n1")
    assert again.claim is not None
    assert await jobs.renew([again.claim], "n1") == frozenset()


async def test_idle_consumers_are_forgotten(store: Store) -> None:
    """Each start has a name of its own: one that holds nothing is removed, one that holds a job stays."""
    jobs = RedisJobStore(store, JobsConfig())
    await jobs.submit(order(), Lane.HELD, "holds")
    await jobs.take(Lane.HELD, "idle", 1)
    await jobs.take(Lane.HELD, "me", 1)
    await jobs.forget_idle_consumers("me", idle_s=0)
    names = {known["name"] for known in await store.redis.xinfo_consumers("t:acme:jobs:held", "nodes")}
    assert names == {"holds", "me"}


async def test_acceptance_survives_kill_9_of_the_server(tmp_path: Path) -> None:
    """What was accepted is there after the server was killed and started again."""
    async with open_store(StoreConfig(), tmp_path) as store:
        jobs = RedisJobStore(store, JobsConfig())
        submission = await jobs.submit(order(body='{"n":1}'), Lane.HELD, "n1", key())
        await jobs.synced()
        assert store.embedded is not None
        os.kill(store.embedded.pid, signal.SIGKILL)
    async with open_store(StoreConfig(), tmp_path) as store:
        jobs = RedisJobStore(store, JobsConfig())
        (claim,) = await jobs.take_over(Lane.HELD, "n2", idle_s=0)
        assert claim == submission.claim
        assert not (await jobs.submit(order(), Lane.HELD, "n2", key())).created


async def test_a_server_that_syncs_every_second_is_asked_to_sync(store: Store) -> None:
    """WAITAOF is sent, and returns once the append-only file is on disk."""
    await store.redis.config_set("appendfsync", "everysec")
    jobs = RedisJobStore(store, JobsConfig())
    await jobs.submit(order(), Lane.QUEUED, "n1")
    await jobs.synced()
    assert await store.redis.exists("node:jobs:synced")
    assert (await store.redis.info("commandstats"))["cmdstat_waitaof"]["calls"] == 1


async def test_a_server_without_a_file_is_used_as_it_is(store: Store) -> None:
    """The warning says what to set, once."""
    await store.redis.config_set("appendonly", "no")
    jobs = RedisJobStore(store, JobsConfig())
    with capture_logs() as logs:
        await jobs.submit(order(), Lane.QUEUED, "n1")
        await jobs.synced()
        await jobs.synced()
    assert [log["advice"] for log in logs] == ["set appendonly yes and appendfsync always"]


async def test_a_store_that_is_away_is_a_store_error(tmp_path: Path) -> None:
    """From every method that a call waits for."""
    once = Retry(NoBackoff(), 0)
    client = Redis(unix_socket_path=str(tmp_path / "nobody.sock"), decode_responses=True, retry=once)
    jobs = RedisJobStore(Store(client, "unix://nobody.sock"), JobsConfig())
    with pytest.raises(StoreError, match="could not accept a job"):
        await jobs.submit(order(), Lane.HELD, "n1")
    with pytest.raises(StoreError, match="could not look up a job"):
        await jobs.get("acme", "job_1")
    with pytest.raises(StoreError, match="could not sync a job"):
        await jobs.synced()
    with pytest.raises(StoreError, match="could not renew claims"):
        await jobs.renew([Claim("acme", "job_1", Lane.HELD, "1-0")], "n1")


async def test_a_job_is_found_by_its_idempotency_key_after_the_key_was_freed(jobs: JobStore) -> None:
    """The newest one of the tenant's key of that name; a job without a key, or of another tenant, is not."""
    failed = await jobs.submit(order(), Lane.HELD, "n1", key())
    await jobs.submit(order(), Lane.QUEUED, "n1")
    assert await jobs.of_key("acme", "k") == await jobs.get("acme", failed.job_id)
    await jobs.finish("acme", failed.job_id, JobState.FAILED, BROKEN)
    assert await jobs.of_key("acme", "k") == await jobs.get("acme", failed.job_id)
    again = await jobs.submit(order(), Lane.QUEUED, "n1", key())
    assert again.created
    found = await jobs.of_key("acme", "k")
    assert found is not None
    assert found.id == again.job_id
    assert await jobs.of_key("zeta", "k") is await jobs.of_key("acme", "other") is None


async def spoil(jobs: JobStore, job_id: str) -> None:
    """As if another version had written the job."""
    if isinstance(jobs, MemoryJobStore):
        jobs.unreadable.add(job_id)
    else:
        assert isinstance(jobs, RedisJobStore)
        await jobs._redis.hset(f"t:acme:jobs:job:{job_id}", "order", '{"unknown":1}')


async def test_a_job_that_cannot_be_read_stands_in_nobodys_way(jobs: JobStore) -> None:
    """Whoever asks for it is told so; pages leave it out; it can be put back without a try, and be taken again."""
    ids = [(await jobs.submit(order(), Lane.QUEUED, "n1")).job_id for _ in range(3)]
    await spoil(jobs, ids[1])
    with pytest.raises(UnreadableRecord, match="a stored Order cannot be read: ValidationError"):
        await jobs.get("acme", ids[1])
    page = await jobs.page("acme", cursor=None, limit=2, state=None)
    assert ([job.id for job in page.jobs], page.next_cursor) == (sorted({ids[0], ids[2]}, reverse=True), None)
    claims = {claim.job_id: claim for claim in await jobs.take(Lane.QUEUED, "n1", 3)}
    with pytest.raises(UnreadableRecord):
        await jobs.begin(claims[ids[1]])
    await jobs.put_back(claims[ids[1]], uncount=True)
    assert {claim.job_id for claim in await jobs.take_over(Lane.QUEUED, "n2", idle_s=0)} == set(ids)
