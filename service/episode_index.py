"""Finds a tenant's episodes by the request ids that its callers saw, whatever their language and split.

    t:<tenant>:journal:requests     hash: request id → `<language> <split> <entry id>`

`service.episode_stream` writes it with each append, and takes out of it what it trims.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import structlog
from redis.asyncio import Redis

from agent.episode import Episode
from agent.errors import StoreError
from service.stored_record import RecordCodec

log = structlog.get_logger(__name__)

_BATCH = 50
"""Episodes that are read and decoded at once."""

_Items = list[tuple[str, dict[str, str]]]


def requests_key(tenant: str) -> str:
    """The key of a tenant's index."""
    return f"t:{tenant}:journal:requests"


class EpisodeIndex:
    """Looks episodes up. Methods raise what the Redis client raises."""

    def __init__(self, redis: Redis, codec: RecordCodec[Episode], on_corrupt: Callable[[], None]) -> None:
        self._redis = redis
        self._codec = codec
        self._on_corrupt = on_corrupt

    async def known(self, tenant: str, request_ids: Sequence[str]) -> list[str]:
        """Those of the ids that the tenant's journal keeps, in order."""
        places = await self._places(tenant, request_ids)
        return [request_id for request_id, place in zip(request_ids, places, strict=True) if place is not None]

    async def get_many(self, tenant: str, request_ids: Sequence[str]) -> dict[str, Episode]:
        """The tenant's episodes of these ids; what is not kept, or cannot be read, is absent.

        Episodes are decoded in a thread: a hundred of them would hold the event loop for too long.
        """
        found: dict[str, Episode] = {}
        for first in range(0, len(request_ids), _BATCH):
            texts = await self._read(tenant, request_ids[first : first + _BATCH])
            episodes = await asyncio.to_thread(self._decoded, tenant, texts)
            found |= {episode.id: episode for episode in episodes}
        return found

    async def owner(self, tenants: Sequence[str], request_id: str) -> str | None:
        """Which of the tenants has an episode of that id."""
        pipeline = self._redis.pipeline(transaction=False)
        for tenant in tenants:
            pipeline.hexists(requests_key(tenant), request_id)
        answers = await pipeline.execute()
        return next((tenant for tenant, has_it in zip(tenants, answers, strict=True) if has_it), None)

    async def _places(self, tenant: str, request_ids: Sequence[str]) -> list[str | None]:
        if not request_ids:
            return []
        return cast("list[str | None]", await self._redis.hmget(requests_key(tenant), list(request_ids)))

    async def _read(self, tenant: str, request_ids: Sequence[str]) -> list[str]:
        pipeline = self._redis.pipeline(transaction=False)
        for place in await self._places(tenant, request_ids):
            if place is not None:
                language, split, entry_id = place.split(" ")
                pipeline.xrange(f"t:{tenant}:journal:{language}:{split}", entry_id, entry_id)
        answers = cast("list[_Items]", await pipeline.execute())
        return [fields.get("episode", "") for items in answers for _, fields in items]

    def _decoded(self, tenant: str, texts: Iterable[str]) -> list[Episode]:
        episodes = []
        for text in texts:
            try:
                episodes.append(self._codec.decode(text))
            except StoreError as error:
                self._on_corrupt()
                log.error("journal_entry_corrupt", tenant=tenant, error=str(error))
        return episodes
