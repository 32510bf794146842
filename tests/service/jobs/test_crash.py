"""kill -9 of front, engine and store, at random: no accepted job is lost, and each has exactly one result.

The default is a few rounds. All 50, with their figures:

    COLOQ_CRASH_ROUNDS=50 pytest tests/service/jobs/test_crash.py -s
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from service.config import JobsConfig, StoreConfig
from service.embedded_valkey import PID_NAME
from service.jobs.records import Job, JobState, Lane
from service.jobs.store import RedisJobStore
from service.store import Store, open_store

ROOT = Path(__file__).resolve().parents[3]
NUM_ROUNDS = int(os.environ.get("COLOQ_CRASH_ROUNDS", "4"))
SEED = 5
NUM_CALLERS = 4
VICTIMS = (
    ("front",),
    ("engine",),
    ("store",),
    ("front", "engine", "store"),
    ("engine", "store"),
    ("front", "store"),
    ("front", "engine"),
)
"""What one round kills; with few rounds the first ones only."""
BRIEF = {"kind": "create", "language": "de", "instructions": "Eine Klingel."}
TENANT = {"Authorization": "Bearer tenant-key"}


class Front:
    """The node's process, to be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        ready = self._folder / "ready"
        ready.unlink(missing_ok=True)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        program = Path(__file__).with_name("crash_node.py")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(program), str(self._folder), env=environment
        )
        async with asyncio.timeout(60):
            while not ready.exists():
                assert self._process.returncode is None, "the node did not start"
                await asyncio.sleep(0.01)
        self.url = ready.read_text()

    async def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return await self._process.wait()

    @property
    def engines(self) -> list[int]:
        """Process ids of the engines that were started so far."""
        return [int(line) for line in (self._folder / "engines.log").read_text().split()]

    def kill_engine(self) -> None:
        with suppress(OSError):  # the last one may be gone, and the next one not started yet
            os.kill(self.engines[-1], signal.SIGKILL)

    def kill_store(self) -> None:
        with suppress(OSError, ValueError):  # it may be starting just now
            os.kill(int((self._folder / "store" / PID_NAME).read_text()), signal.SIGKILL)


@dataclass
class Ledger:
    """What callers were told."""

    accepted: set[str] = field(default_factory=set)
    """Ids of jobs that a caller got 202 for."""
    replies: dict[str, set[str]] = field(default_factory=dict)
    """Request ids of the replies to each idempotency key."""
    statuses: Counter[int] = field(default_factory=Counter)
    num_broken: int = 0


async def call(front: Front, ledger: Ledger, rng: random.Random, stopped: asyncio.Event) -> None:
    """Ask in the ways that there are, until told to stop."""
    async with httpx.AsyncClient(headers=TENANT, timeout=10) as client:
        while not stopped.is_set():
            key = f"key-{rng.getrandbits(64):x}" if rng.random() < 0.5 else None
            headers = {"Prefer": rng.choice(["respond-async", "wait=0", "wait=1", "wait=5"])}
            await ask(client, front, ledger, key, headers)
            await asyncio.sleep(rng.uniform(0, 0.02))


async def ask(
    client: httpx.AsyncClient, front: Front, ledger: Ledger, key: str | None, headers: dict[str, str]
) -> None:
    """One call; with a key it is sent again until the answer has come, as an automation platform does."""
    if key is not None:
        headers = headers | {"Idempotency-Key": key}
    while True:
        try:
            response = await client.post(f"{front.url}/v1/content", json=BRIEF, headers=headers)
        except httpx.TransportError:
            ledger.num_broken += 1
            response = None
        if response is not None:
            ledger.statuses[response.status_code] += 1
            if response.status_code == 202:
                ledger.accepted.add(response.json()["id"])
            if response.status_code == 200:
                if key is not None:
                    ledger.replies.setdefault(key, set()).add(response.json()["request_id"])
                return
        if key is None:
            return
        await asyncio.sleep(0.05)


async def disturb(front: Front, rng: random.Random) -> Counter[str]:
    """The rounds, in random order: let it work for a moment, kill, start again what does not start by itself."""
    kinds: Counter[str] = Counter()
    rounds = (VICTIMS * NUM_ROUNDS)[:NUM_ROUNDS]
    for victims in rng.sample(rounds, NUM_ROUNDS):
        await asyncio.sleep(rng.uniform(0.05, 0.5))
        kinds["+".join(victims)] += 1
        if "engine" in victims:
            front.kill_engine()
        if "store" in victims:
            front.kill_store()
        if "front" in victims:
            await front.end(signal.SIGKILL)
            await front.start()
    return kinds


async def all_jobs(jobs: RedisJobStore) -> list[Job]:
    found: list[Job] = []
    cursor: str | None = None
    while True:
        page = await jobs.page("acme", cursor=cursor, limit=200, state=None)
        found += page.jobs
        if (cursor := page.next_cursor) is None:
            return found


async def settled(front: Front) -> None:
    """Return once no job is open any more, as a caller sees it."""
    async with httpx.AsyncClient(base_url=front.url, headers=TENANT, timeout=10) as client, asyncio.timeout(30):
        for state in ("queued", "running"):
            cursor = ""
            while True:
                response = await client.get(f"/v1/jobs?state={state}&limit=100{cursor}")
                page = response.json() if response.status_code == 200 else {"jobs": [None]}
                if page["jobs"]:
                    await asyncio.sleep(0.1)
                    cursor = ""
                elif page["next_cursor"] is None:
                    break
                else:
                    cursor = f"&cursor={page['next_cursor']}"


def text_of(job: Job) -> str:
    assert job.answer is not None
    return str(json.loads(job.answer.body)["text"])


async def num_results(store: Store) -> int:
    """Results ever written: each adds one entry to lane FINISHED, in the same script."""
    stream = await store.redis.xinfo_stream(f"t:acme:jobs:{Lane.FINISHED}")
    return int(stream["entries-added"])


@pytest.mark.timeout(300)
async def test_no_accepted_job_is_lost_and_each_has_one_result(tmp_path: Path) -> None:
    """Callers ask while front, engine and store are killed. In the end every job that a caller was promised has
    succeeded with the answer to its own request, as many results were written as there are jobs, each key has had one
    reply, subscribers have heard of each job, and engines were started again below fronts that lived on."""
    began_s = time.monotonic()
    rng = random.Random(SEED)
    front, ledger, stopped = Front(tmp_path), Ledger(), asyncio.Event()
    await front.start()
    callers = [
        asyncio.create_task(call(front, ledger, random.Random(SEED + number), stopped))
        for number in range(1, NUM_CALLERS + 1)
    ]
    kinds = await disturb(front, rng)
    stopped.set()
    async with asyncio.timeout(30):
        await asyncio.gather(*callers)
    await settled(front)
    await asyncio.sleep(0.2)
    assert await front.end(signal.SIGTERM) == 0

    async with open_store(StoreConfig(), tmp_path) as store:
        jobs = await all_jobs(RedisJobStore(store, JobsConfig()))
        by_id = {job.id: job for job in jobs}
        assert ledger.accepted - by_id.keys() == set()
        assert Counter(job.state for job in jobs) == {JobState.SUCCEEDED: len(jobs)}
        assert {job.id: text_of(job) for job in jobs} == {
            job.id: f"Antwort auf {job.order.request_id}." for job in jobs
        }
        assert await num_results(store) == len(jobs)
        for lane in Lane:
            assert await store.redis.xlen(f"t:acme:jobs:{lane}") == 0
    assert {len(request_ids) for request_ids in ledger.replies.values()} == {1}
    heard = Counter((tmp_path / "heard.log").read_text().split())
    assert heard.keys() == by_id.keys()
    num_front_starts = 1 + sum(kinds[kind] for kind in kinds if "front" in kind)
    assert len(front.engines) > num_front_starts
    num_generations = (tmp_path / "generations.log").read_text().count("begin ")
    print(  # noqa: T201 - the figures of the 50 rounds
        f"\n{NUM_ROUNDS} rounds in {time.monotonic() - began_s:.0f} s {dict(kinds)}: {len(jobs)} jobs,"
        f" {len(ledger.accepted)} accepted with 202, 0 lost, {len(jobs)} results; {len(ledger.replies)} keys with one"
        f" reply each; {sum(job.attempts > 1 for job in jobs)} jobs took a second try;"
        f" {max(heard.values())} announcements of one job at most; {ledger.num_broken} broken connections;"
        f" statuses {dict(ledger.statuses)}; {num_generations} generations;"
        f" {num_front_starts} fronts and {len(front.engines)} engines started"
    )
