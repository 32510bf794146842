"""Trials on the node's store.

node:canary:running     the running trial with its sums (JSON)
node:canary:baseline    the active policy's record (JSON)
node:canary:ended       list of records (JSON), newest first
"""

from collections.abc import Sequence
from typing import cast

from service.canary.records import Baseline, StoredTrial, TrialRecord
from service.store import Store, store_errors
from service.stored_record import RecordCodec

_RUNNING = "node:canary:running"
_BASELINE = "node:canary:baseline"
_ENDED = "node:canary:ended"
_KEPT = 100


class RedisTrials:
    """``service.canary.ports.TrialStore`` on Redis or Valkey."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._trial = RecordCodec(StoredTrial)
        self._baseline = RecordCodec(Baseline)
        self._record = RecordCodec(TrialRecord)

    async def load(self) -> tuple[StoredTrial | None, Baseline | None]:
        """See TrialStore.load."""
        with store_errors("read the canary"):
            trial, baseline = cast("list[str | None]", await self._redis.mget(_RUNNING, _BASELINE))
        return (
            None if trial is None else self._trial.decode(trial),
            None if baseline is None else self._baseline.decode(baseline),
        )

    async def save(self, trial: StoredTrial | None, baseline: Baseline) -> None:
        """See TrialStore.save."""
        with store_errors("keep the canary"):
            async with self._redis.pipeline(transaction=True) as transaction:
                transaction.set(_BASELINE, self._baseline.encode(baseline))
                if trial is None:
                    transaction.delete(_RUNNING)
                else:
                    transaction.set(_RUNNING, self._trial.encode(trial))
                await transaction.execute()

    async def end(self, record: TrialRecord) -> None:
        """See TrialStore.end."""
        with store_errors("end the canary"):
            async with self._redis.pipeline(transaction=True) as transaction:
                transaction.delete(_RUNNING)
                transaction.lpush(_ENDED, self._record.encode(record))
                transaction.ltrim(_ENDED, 0, _KEPT - 1)
                await transaction.execute()

    async def ended(self) -> Sequence[TrialRecord]:
        """See TrialStore.ended."""
        with store_errors("read the canaries that ended"):
            rows = await self._redis.lrange(_ENDED, 0, -1)
        return [self._record.decode(row) for row in rows]
