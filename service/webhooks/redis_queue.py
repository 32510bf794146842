"""The queue of deliveries on the node's store.

t:<tenant>:webhooks:delivery:<id>     text: the delivery as JSON; expires after the log's retention
t:<tenant>:webhooks:data:<id>         text: data that was too large to send
t:<tenant>:webhooks:log               sorted set: delivery id, scored by when it was made
t:<tenant>:webhooks:queue:<host>      sorted set: delivery id, scored by when it is due, or its lease ends
node:webhooks:lanes                   sorted set: `<tenant> <host>`, scored by its queue's lowest score

One sorted set per lane holds the retry schedule and the leases alike. A stream would be read in order, so a slow host's
backlog would stand before everybody else's. Scores are milliseconds since 1970; scripts keep each step whole, so that a
crash between two commands loses nothing.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast

from service.store import Store, store_errors
from service.stored_record import RecordCodec
from service.webhooks.ports import Lease, LogPage
from service.webhooks.records import Delivery, Lane

_LANES = "node:webhooks:lanes"
_LANES_READ = 1000

_REFRESH = """
local function refresh(lanes, lane, queue)
  local first = redis.call('ZRANGE', queue, 0, 0, 'WITHSCORES')
  if first[2] then redis.call('ZADD', lanes, first[2], lane) else redis.call('ZREM', lanes, lane) end
end
"""

# KEYS: delivery, log, queue, lanes. ARGV: json, ttl, id, made, oldest kept, due, lane.
_ADD = (
    _REFRESH
    + """
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('ZADD', KEYS[3], ARGV[6], ARGV[3])
refresh(KEYS[4], ARGV[7], KEYS[3])
return 1
"""
)

# KEYS: queue, lanes. ARGV: lane, now, end of lease, limit.
_CLAIM = (
    _REFRESH
    + """
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[2], 'LIMIT', 0, ARGV[4])
for _, id in ipairs(due) do redis.call('ZADD', KEYS[1], ARGV[3], id) end
refresh(KEYS[2], ARGV[1], KEYS[1])
return due
"""
)

# KEYS: delivery, queue, lanes. ARGV: json or '', ttl, id, end of lease or '' for any, due or '' for never, lane.
_SETTLE = (
    _REFRESH
    + """
local score = redis.call('ZSCORE', KEYS[2], ARGV[3])
if ARGV[4] ~= '' and (not score or tonumber(score) ~= tonumber(ARGV[4])) then return 0 end
if ARGV[1] ~= '' then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
if ARGV[5] ~= '' then redis.call('ZADD', KEYS[2], ARGV[5], ARGV[3]) else redis.call('ZREM', KEYS[2], ARGV[3]) end
refresh(KEYS[3], ARGV[6], KEYS[2])
return 1
"""
)


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _delivery_key(tenant: str, delivery_id: str) -> str:
    return f"t:{tenant}:webhooks:delivery:{delivery_id}"


def _data_key(tenant: str, delivery_id: str) -> str:
    return f"t:{tenant}:webhooks:data:{delivery_id}"


def _log_key(tenant: str) -> str:
    return f"t:{tenant}:webhooks:log"


def _queue_key(lane: Lane) -> str:
    return f"t:{lane.tenant}:webhooks:queue:{lane.authority}"


class RedisQueue:
    """``service.webhooks.ports.DeliveryQueue`` on Redis or Valkey."""

    def __init__(self, store: Store, *, retention_s: float) -> None:
        self._redis = store.redis
        self._retention_ms = int(retention_s * 1000)
        self._codec = RecordCodec(Delivery)
        self._add = self._redis.register_script(_ADD)
        self._claim = self._redis.register_script(_CLAIM)
        self._settle = self._redis.register_script(_SETTLE)

    async def add(self, delivery: Delivery, lane: Lane, due: datetime) -> bool:
        """See DeliveryQueue."""
        made = _ms(delivery.created_at)
        with store_errors("queue a delivery"):
            return bool(
                await self._add(
                    keys=[
                        _delivery_key(delivery.tenant, delivery.id),
                        _log_key(delivery.tenant),
                        _queue_key(lane),
                        _LANES,
                    ],
                    args=[
                        self._codec.encode(delivery),
                        self._retention_ms,
                        delivery.id,
                        made,
                        made - self._retention_ms,
                        _ms(due),
                        str(lane),
                    ],
                )
            )

    async def get(self, tenant: str, delivery_id: str) -> Delivery | None:
        """See DeliveryQueue."""
        with store_errors("read a delivery"):
            text = await self._redis.get(_delivery_key(tenant, delivery_id))
        return None if text is None else self._codec.decode(text)

    async def page(self, tenant: str, cursor: str | None, limit: int) -> LogPage:
        """See DeliveryQueue. Deliveries that have expired are passed over."""
        with store_errors("read the deliveries"):
            start = 0
            if cursor is not None:
                rank = cast("int | None", await self._redis.zrevrank(_log_key(tenant), cursor))
                if rank is None:
                    return LogPage((), None)
                start = rank + 1
            ids = cast("list[str]", await self._redis.zrevrange(_log_key(tenant), start, start + limit))
            texts = await self._redis.mget([_delivery_key(tenant, item) for item in ids[:limit]]) if ids else []
        deliveries = tuple(self._codec.decode(text) for text in texts if text is not None)
        return LogPage(deliveries, ids[limit - 1] if len(ids) > limit else None)

    async def first_due(self) -> datetime | None:
        """See DeliveryQueue."""
        with store_errors("look for due deliveries"):
            first = await self._redis.zrange(_LANES, 0, 0, withscores=True)
        return datetime.fromtimestamp(float(first[0][1]) / 1000, UTC) if first else None

    async def lanes_due(self, now: datetime, skip: int = 0) -> Sequence[Lane]:
        """See DeliveryQueue."""
        with store_errors("look for due deliveries"):
            names = await self._redis.zrangebyscore(_LANES, "-inf", _ms(now), start=skip, num=_LANES_READ)
        return [Lane.named(name) for name in cast("list[str]", names)]

    async def claim(self, lane: Lane, now: datetime, until: datetime, limit: int) -> list[Lease]:
        """See DeliveryQueue."""
        with store_errors("claim deliveries"):
            ids = await self._claim(keys=[_queue_key(lane), _LANES], args=[str(lane), _ms(now), _ms(until), limit])
        return [Lease(lane, delivery_id, until) for delivery_id in cast("list[str]", ids)]

    async def settle(self, lease: Lease, delivery: Delivery | None, due: datetime | None) -> bool:
        """See DeliveryQueue."""
        return await self._store(lease.lane, lease.delivery_id, delivery, due, lease.until)

    async def put(self, delivery: Delivery, lane: Lane, due: datetime) -> None:
        """See DeliveryQueue."""
        await self._store(lane, delivery.id, delivery, due, None)

    async def _store(
        self, lane: Lane, delivery_id: str, delivery: Delivery | None, due: datetime | None, leased: datetime | None
    ) -> bool:
        with store_errors("store a delivery"):
            return bool(
                await self._settle(
                    keys=[_delivery_key(lane.tenant, delivery_id), _queue_key(lane), _LANES],
                    args=[
                        "" if delivery is None else self._codec.encode(delivery),
                        self._retention_ms,
                        delivery_id,
                        "" if leased is None else _ms(leased),
                        "" if due is None else _ms(due),
                        str(lane),
                    ],
                )
            )

    async def keep_data(self, tenant: str, delivery_id: str, data: str) -> None:
        """See DeliveryQueue."""
        with store_errors("keep an event's data"):
            await self._redis.set(_data_key(tenant, delivery_id), data, px=self._retention_ms)

    async def data(self, tenant: str, delivery_id: str) -> str | None:
        """See DeliveryQueue."""
        with store_errors("read an event's data"):
            return cast("str | None", await self._redis.get(_data_key(tenant, delivery_id)))
