"""The ledger: which policies were made, which one is active, and what every tuning run did. Rows are never changed.

node:policies           hash: version → row (JSON), written once
node:policies:last      the last version handed out; only ever grows
node:policies:active    the version that answers
node:policies:trail     versions that were active one after another, up to that one (JSON); going back shortens it
node:policies:tenants   hash: tenant → the version that answers that tenant alone
node:runs               hash: run id → status (JSON), written again while the run goes on
node:runs:order         sorted set: run id, scored by its start
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import cast

from agent.completion import BASE_VERSION
from agent.errors import NotFound, StoreError
from service.store import Store, store_errors
from service.stored_record import RecordCodec
from trainer.records import PolicyRecord, RunState, RunStatus
from trainer.trail import continued

_POLICIES = "node:policies"
_LAST = "node:policies:last"
_ACTIVE = "node:policies:active"
_TRAIL = "node:policies:trail"
_TENANTS = "node:policies:tenants"
_RUNS = "node:runs"
_ORDER = "node:runs:order"
RUNS_KEPT = 500
"""Newest runs whose reports are kept."""

_AFTER_THE_END = {RunState.RUNNING: RunState.INTERRUPTED, RunState.STOPPING: RunState.STOPPED}

_RAISE_LAST = """
local last = tonumber(redis.call('GET', KEYS[1]) or '0')
if last < tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
"""


class Ledger:
    """``trainer.ports.PolicyLedger`` on the node's store. Every method raises StoreError when it cannot be reached."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._policy = RecordCodec(PolicyRecord)
        self._run = RecordCodec(RunStatus)
        self._on_active: list[Callable[[], None]] = []

    def on_active_version(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever this process has set the active version."""
        self._on_active.append(listener)

    async def begin(self, now: datetime, *, last_version: int = BASE_VERSION) -> None:
        """Make the base model's row unless it is there, and keep versions up to ``last_version`` from being reused
        (policies may lie on disk that a fresh store knows nothing of)."""
        base = PolicyRecord(
            version=BASE_VERSION,
            method="base",
            parent=None,
            run_id=None,
            created_at=now,
            sha256=None,
            parity=None,
            evaluation=None,
        )
        with store_errors("open the ledger"):
            await self._redis.hsetnx(_POLICIES, str(BASE_VERSION), self._policy.encode(base))
            await self._redis.register_script(_RAISE_LAST)(keys=[_LAST], args=[last_version])

    async def next_version(self) -> int:
        """A version that was never handed out before: 1, 2, …; restarts do not reset it."""
        with store_errors("hand out a policy version"):
            return await self._redis.incr(_LAST)

    async def record(self, policy: PolicyRecord) -> None:
        """Append a policy's row; the same row again changes nothing.

        Raises:
            StoreError: also when the version has another row already.
        """
        row = self._policy.encode(policy)
        with store_errors("record a policy"):
            new = await self._redis.hsetnx(_POLICIES, str(policy.version), row)
            if not new and await self._redis.hget(_POLICIES, str(policy.version)) != row:
                raise StoreError(f"the ledger has another row of policy {policy.version}; rows are never changed")

    async def policy(self, version: int) -> PolicyRecord:
        """A policy's row.

        Raises:
            NotFound: the ledger has none of that version.
        """
        with store_errors("read a policy"):
            row = await self._redis.hget(_POLICIES, str(version))
        if row is None:
            raise NotFound(f"no policy {version} in the ledger")
        return self._policy.decode(row)

    async def policies(self) -> list[PolicyRecord]:
        """Every row, newest version first, the base model last."""
        with store_errors("read the policies"):
            rows = await self._redis.hvals(_POLICIES)
        return sorted(map(self._policy.decode, rows), key=lambda policy: policy.version, reverse=True)

    async def active_version(self) -> int:
        """The version to serve after a restart; the base model's before any was activated."""
        with store_errors("read the active policy"):
            value = await self._redis.get(_ACTIVE)
        return BASE_VERSION if value is None else int(value)

    async def set_active_version(self, version: int) -> None:
        """Make ``version`` the one to serve after a restart, and the last of the trail."""
        trail = continued(await self.trail(), version)
        with store_errors("activate a policy"):
            async with self._redis.pipeline(transaction=True) as transaction:
                transaction.set(_ACTIVE, version)
                transaction.set(_TRAIL, json.dumps(trail))
                await transaction.execute()
        for listener in self._on_active:
            listener()

    async def trail(self) -> list[int]:
        """See trainer.ports.PolicyLedger.trail."""
        with store_errors("read the trail of active policies"):
            text = await self._redis.get(_TRAIL)
        return continued([BASE_VERSION], await self.active_version()) if text is None else json.loads(text)

    async def tenant_versions(self) -> Mapping[str, int]:
        """See trainer.ports.PolicyLedger.tenant_versions."""
        with store_errors("read the tenants' policies"):
            versions = cast("dict[str, str]", await self._redis.hgetall(_TENANTS))
        return {tenant: int(version) for tenant, version in versions.items()}

    async def set_tenant_version(self, tenant: str, version: int | None) -> None:
        """See trainer.ports.PolicyLedger.set_tenant_version."""
        with store_errors("note a tenant's policy"):
            if version is None:
                await self._redis.hdel(_TENANTS, tenant)
            else:
                await self._redis.hset(_TENANTS, tenant, str(version))

    async def save_run(self, status: RunStatus) -> None:
        """Write a run's latest status. The newest 500 runs are kept."""
        with store_errors("save a tuning run"):
            async with self._redis.pipeline(transaction=True) as transaction:
                transaction.hset(_RUNS, status.id, self._run.encode(status))
                transaction.zadd(_ORDER, {status.id: status.started_at.timestamp()})
                transaction.zrange(_ORDER, 0, -RUNS_KEPT - 1)
                *_, surplus = await transaction.execute()
            if surplus:
                async with self._redis.pipeline(transaction=True) as transaction:
                    transaction.hdel(_RUNS, *surplus)
                    transaction.zrem(_ORDER, *surplus)
                    await transaction.execute()

    async def run(self, run_id: str) -> RunStatus:
        """A run's latest status.

        Raises:
            NotFound: there is no such run, or it is no longer kept.
        """
        with store_errors("read a tuning run"):
            row = await self._redis.hget(_RUNS, run_id)
        if row is None:
            raise NotFound(f"no tuning run {run_id!r}")
        return self._run.decode(row)

    async def runs(self) -> list[RunStatus]:
        """Every run that is kept, newest first."""
        with store_errors("read the tuning runs"):
            rows = await self._redis.hvals(_RUNS)
        return sorted(map(self._run.decode, rows), key=lambda run: run.started_at, reverse=True)

    async def close_interrupted(self, now: datetime, reason: str) -> list[RunStatus]:
        """Mark the runs that a stopped node left running as interrupted, those that were to stop as stopped."""
        closed = [
            replace(run, state=_AFTER_THE_END[run.state], ended_at=now, reason=reason)
            for run in await self.runs()
            if not run.state.final
        ]
        for status in closed:
            await self.save_run(status)
        return closed
