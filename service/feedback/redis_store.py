"""Feedback on Redis or Valkey.

    t:<tenant>:feedback                       stream: `request` and `feedback` (JSON)
    t:<tenant>:feedback:request:<request id>  list: ids of the request's entries, oldest first
    t:<tenant>:feedback:newest:<request id>   hash: slot → digest of what the newest piece in it says
    t:<tenant>:feedback:key:<name>            fingerprint of the body that came with an idempotency key; expires
    node:feedback:tenants                     set of tenants that have such a stream

A request's keys go with its last entry. Needs Redis 6.2 or any Valkey.
"""

from collections.abc import AsyncIterator, Sequence
from typing import cast

import structlog

from agent.errors import IdempotencyKeyReused, StoreError
from agent.feedback import Feedback
from service.config import StoreConfig
from service.feedback.ports import MAX_LISTED
from service.idempotency import HEADER, IdempotencyKey
from service.store import Store, store_errors
from service.stored_record import RecordCodec

log = structlog.get_logger(__name__)

_TENANTS = "node:feedback:tenants"
_BATCH = 200
"""Entries read and decoded at once: more would hold the event loop, which answers live requests, for longer."""

_ADD = """
local stream, tenants, entries, newest, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local tenant, request, retention, fingerprint, ttl_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local stored = {}
local known = key and redis.call('GET', key)
if known and known ~= fingerprint then return {-1} end
if key and not known then redis.call('SET', key, fingerprint, 'PX', ttl_ms) end
for i = 6, #ARGV, 3 do
    local slot, content, feedback = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if known or (not key and redis.call('HGET', newest, slot) == content) then
        stored[#stored + 1] = 0
    else
        redis.call('RPUSH', entries, redis.call('XADD', stream, '*', 'request', request, 'feedback', feedback))
        redis.call('HSET', newest, slot, content)
        stored[#stored + 1] = 1
    end
end
redis.call('SADD', tenants, tenant)
while redis.call('XLEN', stream) > retention do
    local oldest = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
    local of_oldest = stream .. ':request:' .. oldest[2][2]
    redis.call('XDEL', stream, oldest[1])
    redis.call('LPOP', of_oldest)
    if redis.call('EXISTS', of_oldest) == 0 then redis.call('DEL', stream .. ':newest:' .. oldest[2][2]) end
end
return stored
"""
"""Adds what is new and drops what is beyond retention: entries leave the stream and their request's list in the same
order, so each time it is the first of both."""

_Entries = list[tuple[str, dict[str, str]]]


class RedisFeedback:
    """``service.feedback.ports.FeedbackStore`` on the node's store. What cannot be read is logged and skipped."""

    def __init__(self, store: Store, config: StoreConfig) -> None:
        self._redis = store.redis
        self._retention = config.feedback_retention
        self._codec = RecordCodec(Feedback)
        self._add = self._redis.register_script(_ADD)

    async def add(self, given: Sequence[Feedback], key: IdempotencyKey | None = None) -> list[bool]:
        """See FeedbackStore."""
        stream, request_id = _stream(given[0].tenant), given[0].request_id
        keys = [stream, _TENANTS, f"{stream}:request:{request_id}", f"{stream}:newest:{request_id}"]
        arguments: list[str | int] = [given[0].tenant, request_id, self._retention, "", 0]
        if key is not None:
            keys.append(f"{stream}:key:{key.name}")
            arguments[3:] = [key.fingerprint, int(key.ttl_s * 1000)]
        for piece in given:
            arguments += [piece.slot, piece.content, self._codec.encode(piece)]
        with store_errors("keep feedback"):
            stored = cast("list[int]", await self._add(keys=keys, args=arguments))
        if stored == [-1]:
            raise IdempotencyKeyReused(
                HEADER, "must be new for a new body, but it was used for another one; send a key of its own"
            )
        return [flag == 1 for flag in stored]

    async def of_request(self, tenant: str, request_id: str) -> list[Feedback]:
        """See FeedbackStore."""
        stream = _stream(tenant)
        with store_errors("read a reply's feedback"):
            ids = cast("list[str]", await self._redis.lrange(f"{stream}:request:{request_id}", -MAX_LISTED, -1))
            pipeline = self._redis.pipeline(transaction=False)
            for entry_id in ids:
                pipeline.xrange(stream, entry_id, entry_id)
            found = cast("list[_Entries]", await pipeline.execute())
        return self._decoded([entry for entries in found for entry in entries])

    async def read(self, tenant: str) -> AsyncIterator[Sequence[Feedback]]:
        """See FeedbackStore."""
        after = "-"
        while True:
            with store_errors("read feedback"):
                entries = cast("_Entries", await self._redis.xrange(_stream(tenant), min=after, count=_BATCH))
            if not entries:
                return
            yield self._decoded(entries)
            after = f"({entries[-1][0]}"

    async def tenants(self) -> Sequence[str]:
        """See FeedbackStore."""
        with store_errors("read the tenants with feedback"):
            return sorted(cast("set[str]", await self._redis.smembers(_TENANTS)))

    def _decoded(self, entries: _Entries) -> list[Feedback]:
        found = []
        for entry_id, fields in entries:
            try:
                found.append(self._codec.decode(fields.get("feedback", "")))
            except StoreError as error:
                log.error("feedback_corrupt", entry=entry_id, error=str(error))
        return found


def _stream(tenant: str) -> str:
    return f"t:{tenant}:feedback"
