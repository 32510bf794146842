"""One Redis stream of episodes and its indexes: stored, found, claimed and settled. Knows nothing of balance or splits.

    t:<tenant>:journal:<language>:<split>           the stream; consumer group `tuning`
    t:<tenant>:journal:<language>:<split>:index     sorted set: request id, scored by its entry's millisecond
    t:<tenant>:journal:<language>:<split>:prompts   sorted set: prompt digest, scored by its newest entry's millisecond
    t:<tenant>:journal:requests                     hash of all the tenant's streams, see service.episode_index

The index tells which request ids are there, the prompts find an episode by its prompt or by rank when one is drawn at
random: a prompt that was logged a thousand times is there once. Needs Redis 6.2 or any Valkey.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from agent.episode import Episode
from agent.errors import StoreError
from service.stored_record import RecordCodec

log = structlog.get_logger(__name__)

_GROUP = "tuning"
_FEW_RANKS = 16
"""Up to so many are asked for one by one; for more, all up to the last are read."""
_WINDOW = 2000
"""Digests read at once: more would hold the event loop, which answers live requests, for longer."""

_APPEND = """
if redis.call('ZSCORE', KEYS[2], ARGV[1]) then return 0 end
local entry = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], '*', 'id', ARGV[1], 'prompt', ARGV[5],
                         'episode', ARGV[2])
local millisecond = string.match(entry, '^%d+')
redis.call('ZADD', KEYS[2], millisecond, ARGV[1])
redis.call('HSET', KEYS[5], ARGV[1], ARGV[6] .. ' ' .. entry)
while redis.call('ZCARD', KEYS[2]) > tonumber(ARGV[3]) do
    redis.call('HDEL', KEYS[5], redis.call('ZPOPMIN', KEYS[2])[1])
end
redis.call('ZADD', KEYS[4], millisecond, ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2])
redis.call('SADD', KEYS[3], ARGV[4])
return 1
"""
"""Adds an episode once. The index is trimmed exactly, the prompts to what it holds (to the millisecond), the stream
approximately and never below the index."""

_Items = list[tuple[str, dict[str, str] | None]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored episode. ``episode`` is None when it was trimmed away meanwhile, or cannot be read."""

    id: str
    episode: Episode | None


class EpisodeStream:
    """A tenant's episodes of one language and split. Methods raise what the Redis client raises.

    ``on_corrupt`` is called for each payload that cannot be read. ``codec`` is handed in because making one costs more
    than a request may, and a stream is made for each.
    """

    def __init__(
        self, redis: Redis, key: str, codec: RecordCodec[Episode], *, consumer: str, on_corrupt: Callable[[], None]
    ) -> None:
        self.key = key
        self._redis = redis
        self._index = f"{key}:index"
        self._prompts = f"{key}:prompts"
        self._consumer = consumer
        self._on_corrupt = on_corrupt
        self._codec = codec

    async def append(
        self, episode: Episode, *, retention: int, registry: str, member: str, requests: str, place: str
    ) -> None:
        """Add an episode unless its id is there already, ``member`` to the set ``registry`` and its place to the hash
        ``requests``, in one transaction."""
        script = self._redis.register_script(_APPEND)
        await script(
            keys=[self.key, self._index, registry, self._prompts, requests],
            args=[episode.id, self._codec.encode(episode), retention, member, episode.prompt_digest, place],
        )

    async def count(self) -> int:
        """Number of episodes that can be found by the index."""
        return await self._redis.zcard(self._index)

    async def num_prompts(self) -> int:
        """Number of different prompts that can be drawn."""
        return await self._redis.zcard(self._prompts)

    async def prompts_at(self, ranks: Sequence[int]) -> list[str]:
        """Digests of the prompts at these ranks, the one longest unseen being 0; ranks without one are left out."""
        if len(ranks) <= _FEW_RANKS:
            pipeline = self._redis.pipeline(transaction=False)
            for rank in ranks:
                pipeline.zrange(self._prompts, rank, rank)
            return [digest for found in cast("list[list[str]]", await pipeline.execute()) for digest in found]
        digests: list[str] = []
        for first in range(0, max(ranks) + 1, _WINDOW):
            digests += cast("list[str]", await self._redis.zrange(self._prompts, first, first + _WINDOW - 1))
        return [digests[rank] for rank in ranks if rank < len(digests)]

    async def of_prompt(self, digest: str) -> Entry | None:
        """The newest entry of that prompt, or None."""
        millisecond = await self._redis.zscore(self._prompts, digest)
        if millisecond is None:
            return None
        items = cast("_Items", await self._redis.xrange(self.key, min=str(int(millisecond)), max=str(int(millisecond))))
        wanted = [item for item in items if item[1] and item[1].get("prompt") == digest]
        return self._entries(wanted)[0] if wanted else None

    async def newest(self, count: int) -> list[Episode]:
        """Up to ``count`` readable episodes, newest first."""
        entries = self._entries(await self._redis.xrevrange(self.key, count=count))
        return [entry.episode for entry in entries if entry.episode is not None]

    async def open_group(self) -> None:
        """Make the consumer group unless it is there; it begins with the oldest entry."""
        try:
            await self._redis.xgroup_create(self.key, _GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def abandoned(self, *, idle_ms: int, sole_user: bool, count: int) -> list[str]:
        """Ids of the oldest claims that were left for ``idle_ms``, or, with ``sole_user``, by any other consumer."""
        pending = await self._redis.xpending_range(self.key, _GROUP, min="-", max="+", count=count)
        return [
            str(item["message_id"])
            for item in pending
            if int(item["time_since_delivered"]) >= idle_ms or (sole_user and item["consumer"] != self._consumer)
        ]

    async def take_over(self, entry_id: str, *, idle_ms: int) -> Entry | None:
        """Claim an entry that has been left for ``idle_ms``; None when another consumer was faster or it is gone."""
        items = cast("_Items", await self._redis.xclaim(self.key, _GROUP, self._consumer, idle_ms, [entry_id]))
        # Redis 6.2 answers nil for an entry that was trimmed away; later servers drop such a claim themselves.
        entries = self._entries([(entry_id, fields) for _, fields in items])
        return entries[0] if entries else None

    async def claim_again(self, entry_id: str) -> Episode | None:
        """An entry that was handed out before, claimed by this consumer if it is not settled; None when it is gone."""
        entries = self._entries(await self._redis.xrange(self.key, min=entry_id, max=entry_id))
        if not entries:
            return None
        await self._redis.xclaim(self.key, _GROUP, self._consumer, 0, [entry_id])
        return entries[0].episode

    async def read_new(self) -> Entry | None:
        """Claim the oldest entry that nobody has claimed yet; None when there is none."""
        answer = await self._redis.xreadgroup(_GROUP, self._consumer, {self.key: ">"}, count=1)
        if not answer:
            return None
        ((_, items),) = cast("list[tuple[str, _Items]]", answer)
        return self._entries(items)[0]

    async def settle(self, *entry_ids: str) -> None:
        """Mark claimed entries as done; others are left as they are."""
        await self._redis.xack(self.key, _GROUP, *entry_ids)

    def _entries(self, items: object) -> list[Entry]:
        return [Entry(entry_id, self._episode(entry_id, fields)) for entry_id, fields in cast("_Items", items or [])]

    def _episode(self, entry_id: str, fields: dict[str, str] | None) -> Episode | None:
        if fields is None:
            return None
        try:
            return self._codec.decode(fields.get("episode", ""))
        except StoreError as error:
            self._on_corrupt()
            log.error("journal_entry_corrupt", stream=self.key, entry=entry_id, error=str(error))
            return None
