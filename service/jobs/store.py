"""Jobs on Redis or Valkey: streams with one consumer group, moved by the scripts of service.jobs.scripts.

    submit ─► held | queued ─► take, begin ─► finish ─► finished ─► settle
                     └─ take_over: what a dead node left, by XAUTOCLAIM

An acceptance is told to a caller only after ``synced``. The embedded server, and any with `appendfsync always`, has
written to disk by the time it answers; of others WAITAOF is asked (Redis or Valkey 7.2). A server that can promise
neither is used as it is, and that is logged once.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from enum import Enum
from typing import Any, cast

import structlog
from redis.exceptions import ResponseError

from agent.errors import IdempotencyKeyReused, StoreError, UnreadableRecord
from service.config import JobsConfig
from service.idempotency import HEADER, IdempotencyKey
from service.jobs import scripts
from service.jobs.records import (
    Answer,
    Claim,
    Job,
    JobPage,
    JobState,
    Lane,
    Order,
    Submission,
    new_job_id,
)
from service.store import Store, store_errors
from service.stored_record import RecordCodec

log = structlog.get_logger(__name__)

_REGISTRY = "node:jobs:tenants"
_SYNC_MARK = "node:jobs:synced"
_SYNC_TIMEOUT_MS = 4000
_TAKE_OVER_COUNT = 100
_MOST_SCANNED = 1000
"""Jobs that one page looks through for a state."""


class _Sync(Enum):
    """How the server makes a write durable."""

    ALWAYS = "before it answers"
    ON_REQUEST = "when WAITAOF asks"
    UNKNOWN = "not known to do so"


class RedisJobStore:
    """``service.jobs.ports.JobStore`` on the node's store."""

    def __init__(self, store: Store, config: JobsConfig) -> None:
        self._redis = store.redis
        self._retention_ms = int(max(config.retention_s, config.idempotency_ttl_s) * 1000)
        self._orders = RecordCodec(Order)
        self._answers = RecordCodec(Answer)
        self._submit = self._redis.register_script(scripts.SUBMIT)
        self._begin = self._redis.register_script(scripts.BEGIN)
        self._put_back = self._redis.register_script(scripts.PUT_BACK)
        self._finish = self._redis.register_script(scripts.FINISH)
        self._renew = self._redis.register_script(scripts.RENEW)
        self._answered = self._redis.register_script(scripts.ANSWERED)
        self._sync: _Sync | None = None
        self._turn = 0

    async def submit(self, order: Order, lane: Lane, consumer: str, key: IdempotencyKey | None = None) -> Submission:
        """See JobStore."""
        job_id, tenant = new_job_id(), order.tenant
        streams = [_stream(tenant, each) for each in Lane]
        keys = [_job(tenant, job_id), _index(tenant), _expiry(tenant), _REGISTRY, _stream(tenant, lane), *streams]
        arguments: list[str | int] = [job_id, self._orders.encode(order), _now().isoformat(), lane.value, consumer]
        arguments += [tenant, _job(tenant, ""), _milliseconds(_now())]
        if key is not None:
            keys += [_idempotency(tenant, key), _job_of_key(tenant, key.name)]
            answered_ttl_ms = "" if key.answered_ttl_s is None else int(key.answered_ttl_s * 1000)
            arguments += [key.fingerprint, int(key.ttl_s * 1000), self._retention_ms, answered_ttl_ms]
        with store_errors("accept a job"):
            outcome, found_id, detail = cast("list[str]", await self._submit(keys=keys, args=arguments))
        if outcome == "created":
            claim = Claim(tenant, job_id, lane, detail) if lane is Lane.HELD else None
            return Submission(job_id, created=True, claim=claim)
        if key is not None and detail != key.fingerprint:
            raise IdempotencyKeyReused(
                HEADER, "must be new for a new body, but it was used for another one; send a key of its own"
            )
        return Submission(found_id, created=False)

    async def synced(self) -> None:
        """See JobStore."""
        with store_errors("sync a job"):
            self._sync = self._sync or await self._sync_of_server()
            if self._sync is not _Sync.ON_REQUEST:
                return
            pipeline = self._redis.pipeline(transaction=False)
            # WAITAOF asks for its own connection's writes; the file is one sequence, so this covers all before it.
            pipeline.set(_SYNC_MARK, _milliseconds(_now()))
            pipeline.waitaof(1, 0, _SYNC_TIMEOUT_MS)
            _, reached = await pipeline.execute(raise_on_error=False)
        if isinstance(reached, Exception):
            self._sync = _Sync.UNKNOWN
            log.warning("jobs_not_synced", reason=str(reached), advice="set appendonly yes and appendfsync always")
        elif not reached or int(reached[0]) < 1:
            raise StoreError(f"the store must sync a job within {_SYNC_TIMEOUT_MS} ms, and it did not")

    async def get(self, tenant: str, job_id: str) -> Job | None:
        """See JobStore."""
        with store_errors("look up a job"):
            fields = cast("dict[str, str]", await self._redis.hgetall(_job(tenant, job_id)))
        return self._decoded(job_id, fields) if fields else None

    async def of_key(self, tenant: str, name: str) -> Job | None:
        """See JobStore."""
        with store_errors("look up a job by its key"):
            job_id = cast("str | None", await self._redis.get(_job_of_key(tenant, name)))
        return None if job_id is None else await self.get(tenant, job_id)

    async def page(self, tenant: str, *, cursor: str | None, limit: int, state: JobState | None) -> JobPage:
        """See JobStore."""
        jobs: list[Job] = []
        scanned = 0
        while len(jobs) < limit and scanned < _MOST_SCANNED:
            batch = await self._older_than(tenant, cursor, limit)
            for job_id, fields in batch:
                cursor = job_id
                if fields and (state is None or fields["state"] == state):
                    jobs += self._readable(job_id, fields)
                if len(jobs) == limit:
                    break
            scanned += len(batch)
            if len(batch) < limit and len(jobs) < limit:
                return JobPage(tuple(jobs), None)
        more = bool(await self._older_than(tenant, cursor, 1))
        return JobPage(tuple(jobs), cursor if more else None)

    async def take(self, lane: Lane, consumer: str, count: int) -> Sequence[Claim]:
        """See JobStore."""
        claims: list[Claim] = []
        async with self._grouped("hand out jobs"):
            turns = deque(await self._tenants())
            turns.rotate(-self._turn)
            self._turn += 1
            while turns and len(claims) < count:
                wanted = count - len(claims)
                asked = [turns.popleft() for _ in range(min(len(turns), wanted))]
                found = await self._read_new(lane, consumer, asked, max(1, wanted // len(asked)))
                claims += found
                turns.extend(dict.fromkeys(claim.tenant for claim in found))
        return claims

    async def take_over(self, lane: Lane, consumer: str, *, idle_s: float) -> Sequence[Claim]:
        """See JobStore."""
        claims: list[Claim] = []
        async with self._grouped("take over jobs"):
            for tenant in await self._tenants():
                start = "0-0"
                while True:
                    start, entries, *_ = await self._redis.xautoclaim(
                        _stream(tenant, lane), scripts.GROUP, consumer, int(idle_s * 1000), start, _TAKE_OVER_COUNT
                    )
                    claims += [Claim(tenant, fields["id"], lane, entry) for entry, fields in entries if fields]
                    if start == "0-0":
                        break
        return claims

    async def renew(self, claims: Iterable[Claim], consumer: str) -> frozenset[str]:
        """See JobStore."""
        asked = list(claims)
        pipeline = self._redis.pipeline(transaction=False)
        for claim in asked:
            await self._renew(
                keys=[_job(claim.tenant, claim.job_id), _stream(claim.tenant, claim.lane)],
                args=[claim.entry, consumer],
                client=pipeline,
            )
        with store_errors("renew claims"):
            kept = await pipeline.execute()
        return frozenset(claim.job_id for claim, is_ours in zip(asked, kept, strict=True) if not int(is_ours))

    async def begin(self, claim: Claim) -> Job | None:
        """See JobStore."""
        with store_errors("begin a job"):
            fields = await self._begin(
                keys=[_job(claim.tenant, claim.job_id), _stream(claim.tenant, claim.lane)],
                args=[claim.entry, _now().isoformat()],
            )
        return self._decoded(claim.job_id, _mapping(fields)) if fields else None

    async def put_back(self, claim: Claim, *, uncount: bool) -> None:
        """See JobStore."""
        with store_errors("put a job back"):
            await self._put_back(keys=[_job(claim.tenant, claim.job_id)], args=[-1 if uncount else 0])

    async def finish(
        self, tenant: str, job_id: str, state: JobState, answer: Answer, *, dead_reason: str | None = None
    ) -> Job | None:
        """See JobStore."""
        now = _now()
        lanes = [_stream(tenant, lane) for lane in (Lane.FINISHED, Lane.HELD, Lane.QUEUED)]
        frees_key = int(state is JobState.FAILED and answer.worth_another_try)
        with store_errors("keep a job's result"):
            fields = await self._finish(
                keys=[_job(tenant, job_id), _expiry(tenant), *lanes],
                args=[
                    job_id,
                    state.value,
                    self._answers.encode(answer),
                    now.isoformat(),
                    dead_reason or "",
                    _milliseconds(now),
                    self._retention_ms,
                    frees_key,
                ],
            )
        return self._decoded(job_id, _mapping(fields)) if fields else None

    async def settle(self, claim: Claim) -> None:
        """See JobStore."""
        stream = _stream(claim.tenant, claim.lane)
        with store_errors("settle a job"):
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.xack(stream, scripts.GROUP, claim.entry)
            pipeline.xdel(stream, claim.entry)
            await pipeline.execute()

    async def answered(self, tenant: str, job_id: str) -> None:
        """See JobStore."""
        with store_errors("shorten a key's life"):
            await self._answered(keys=[_job(tenant, job_id)], args=[job_id])

    async def forget_idle_consumers(self, consumer: str, *, idle_s: float) -> None:
        """See JobStore."""
        async with self._grouped("forget consumers"):
            for stream in [_stream(tenant, lane) for tenant in await self._tenants() for lane in Lane]:
                for known in await self._redis.xinfo_consumers(stream, scripts.GROUP):
                    is_idle = int(known["pending"]) == 0 and int(known["idle"]) >= idle_s * 1000
                    if is_idle and known["name"] != consumer:
                        await self._redis.xgroup_delconsumer(stream, scripts.GROUP, known["name"])

    async def _sync_of_server(self) -> _Sync:
        try:
            settings = await self._redis.config_get("append*")
        except ResponseError:  # a managed server may forbid CONFIG
            return _Sync.ON_REQUEST
        always = settings.get("appendonly") == "yes" and settings.get("appendfsync") == "always"
        return _Sync.ALWAYS if always else _Sync.ON_REQUEST

    @asynccontextmanager
    async def _grouped(self, purpose: str) -> AsyncIterator[None]:
        """As ``store_errors``; a stream that somebody deleted is mended, so that only this one call fails by it."""
        with store_errors(purpose):
            try:
                yield
            except ResponseError as error:
                if str(error).startswith("NOGROUP"):
                    await self._mend()
                raise

    async def _mend(self) -> None:
        for tenant in await self._tenants():
            streams = [_stream(tenant, lane) for lane in Lane]
            missing = [stream for stream in streams if not await self._redis.exists(stream)]
            if len(missing) == len(streams):
                await self._redis.srem(_REGISTRY, tenant)
                continue
            for stream in missing:
                await self._redis.xgroup_create(stream, scripts.GROUP, id="0", mkstream=True)

    async def _tenants(self) -> list[str]:
        return sorted(cast("set[str]", await self._redis.smembers(_REGISTRY)))

    async def _read_new(self, lane: Lane, consumer: str, tenants: Sequence[str], count: int) -> list[Claim]:
        by_stream = {_stream(tenant, lane): tenant for tenant in tenants}
        answer = await self._redis.xreadgroup(
            scripts.GROUP, consumer, cast("Any", dict.fromkeys(by_stream, ">")), count=count
        )
        return [
            Claim(by_stream[stream], fields["id"], lane, entry)
            for stream, entries in cast("Any", answer or [])
            for entry, fields in entries
        ]

    async def _older_than(self, tenant: str, cursor: str | None, count: int) -> list[tuple[str, dict[str, str]]]:
        newest = "+" if cursor is None else f"({cursor}"
        with store_errors("list jobs"):
            ids = cast("list[str]", await self._redis.zrevrangebylex(_index(tenant), newest, "-", start=0, num=count))
            pipeline = self._redis.pipeline(transaction=False)
            for job_id in ids:
                pipeline.hgetall(_job(tenant, job_id))
            return list(zip(ids, await pipeline.execute(), strict=True)) if ids else []

    def _readable(self, job_id: str, fields: Mapping[str, str]) -> list[Job]:
        try:
            return [self._decoded(job_id, fields)]
        except UnreadableRecord as error:
            log.error("job_unreadable", job=job_id, reason=str(error))
            return []

    def _decoded(self, job_id: str, fields: Mapping[str, str]) -> Job:
        return Job(
            id=job_id,
            order=self._orders.decode(fields["order"]),
            state=JobState(fields["state"]),
            created_at=datetime.fromisoformat(fields["created_at"]),
            started_at=_time(fields.get("started_at")),
            finished_at=_time(fields.get("finished_at")),
            attempts=int(fields["attempts"]),
            answer=self._answers.decode(fields["answer"]) if "answer" in fields else None,
            dead_reason=fields.get("dead_reason"),
        )


def _now() -> datetime:
    return datetime.now(UTC)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _mapping(flat: Sequence[str] | Mapping[str, str]) -> Mapping[str, str]:
    """A script's HGETALL: a flat list, as scripts answer whatever the protocol."""
    if isinstance(flat, Mapping):
        return flat
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _job(tenant: str, job_id: str) -> str:
    return f"t:{tenant}:jobs:job:{job_id}"


def _index(tenant: str) -> str:
    return f"t:{tenant}:jobs:index"


def _expiry(tenant: str) -> str:
    return f"t:{tenant}:jobs:expiry"


def _stream(tenant: str, lane: Lane) -> str:
    return f"t:{tenant}:jobs:{lane}"


def _idempotency(tenant: str, key: IdempotencyKey) -> str:
    return f"t:{tenant}:idem:{key.name}"


def _job_of_key(tenant: str, name: str) -> str:
    return f"t:{tenant}:idem:{name}:job"
