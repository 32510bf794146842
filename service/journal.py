"""The journal of episodes on the node's store: what tuning draws its prompts from.

    append ─► train ─► claim: abandoned claims, then unread episodes, then random prompts again ─► settle
          └─► held  ─► held_out

A hash of the prompt chooses the split, so one prompt is always on one side. An unread episode that a claim passes over
(a duplicate, a capped end user) counts as read: its prompt comes again once there is nothing unread.
"""

import asyncio
import hashlib
import json
import random
import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TypeVar, cast

from agent.brief import Brief
from agent.episode import Episode
from agent.ports import Claim
from agent.selection import Selection
from service.claim_draw import MAX_PASSED_OVER, LanguageDraw, TenantDraw, shuffled, take_turns
from service.config import StoreConfig
from service.episode_index import EpisodeIndex, requests_key
from service.episode_stream import EpisodeStream
from service.store import Store, store_errors
from service.stored_record import RecordCodec

_REGISTRY = "node:journal:streams"
"""Set of `<tenant> <language>`: which streams exist."""
_MAX_PENDING_READ = 1000
_REPEATS_READ = 8
"""Held-out episodes read per one that is wanted: repetitions of a prompt are looked past."""
_APPENDS_AT_ONCE = 32
"""Half of the store's connections: while it syncs slowly, others must still reach it."""

Item = TypeVar("Item")


class Split(StrEnum):
    """Which side of the journal an episode is on."""

    TRAIN = "train"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Shelf:
    """Whose episodes in which language."""

    tenant: str
    language: str

    def key(self, split: Split) -> str:
        """The stream's key."""
        return f"t:{self.tenant}:journal:{self.language}:{split}"


def split_of(brief: Brief, held_out_share: float) -> Split:
    """The split of a brief's prompt: the same for the same kind, language, instructions and text."""
    prompt = json.dumps([brief.kind, brief.language, brief.instructions, brief.text])
    fraction = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) / 2**64
    return Split.HELD if fraction < held_out_share else Split.TRAIN


class RedisJournal:
    """``agent.ports.ClaimingJournal`` on Redis or Valkey.

    An episode that is being appended can be looked up already: who does waits for the append. A payload that cannot be
    read is reported to ``on_corrupt``, logged and skipped. A claim that nobody settles for ``abandoned_after_s`` is
    handed out again; on an embedded store, which only this node uses, those of an earlier process are handed out at
    once. Of a tenant that is not served any more (``is_served``) nothing is handed out.
    """

    def __init__(
        self,
        store: Store,
        config: StoreConfig,
        *,
        on_corrupt: Callable[[], None] = lambda: None,
        abandoned_after_s: float = 600.0,
        is_served: Callable[[str], bool] = lambda tenant: True,
    ) -> None:
        self._redis = store.redis
        self._retention = config.journal_retention
        self._held_out_share = config.held_out_share
        self._on_corrupt = on_corrupt
        self._is_served = is_served
        self._sole_user = store.embedded is not None
        self._abandoned_after_ms = int(abandoned_after_s * 1000)
        self._consumer = secrets.token_hex(8)
        self._codec = RecordCodec(Episode)
        self._by_request = EpisodeIndex(store.redis, self._codec, on_corrupt)
        self._turns = asyncio.Semaphore(_APPENDS_AT_ONCE)
        self._appending: dict[str, asyncio.Future[None]] = {}
        """By the episode's id; resolved at the append's end, however it ends."""

    async def append(self, episode: Episode) -> None:
        """Store one episode; an id that the journal already has changes nothing.

        Raises:
            StoreError: the store could not take it.
        """
        shelf = Shelf(episode.brief.tenant, episode.brief.language)
        split = split_of(episode.brief, self._held_out_share)
        with self._under_way(episode.id), store_errors("take an episode"):
            async with self._turns:
                await self._stream(shelf, split).append(
                    episode,
                    retention=self._retention,
                    registry=_REGISTRY,
                    member=f"{shelf.tenant} {shelf.language}",
                    requests=requests_key(shelf.tenant),
                    place=f"{shelf.language} {split}",
                )

    async def get(self, tenant: str, request_id: str) -> Episode | None:
        """A tenant's episode by the request id that its caller saw; None when unknown or no longer kept.

        Raises:
            StoreError: the store could not be reached.
        """
        return (await self.get_many(tenant, [request_id])).get(request_id)

    async def get_many(self, tenant: str, request_ids: Sequence[str]) -> dict[str, Episode]:
        """A tenant's episodes by their request ids; those that are unknown or no longer kept are absent.

        Raises:
            StoreError: the store could not be reached.
        """
        await self._appended(request_ids)
        with store_errors("look up an episode"):
            return await self._by_request.get_many(tenant, request_ids)

    async def known(self, tenant: str, request_ids: Sequence[str]) -> list[str]:
        """Those of the ids that the tenant's journal keeps, in order.

        Raises:
            StoreError: the store could not be reached.
        """
        await self._appended(request_ids)
        with store_errors("look up an episode"):
            return await self._by_request.known(tenant, request_ids)

    async def find(self, request_id: str) -> Episode | None:
        """The episode of that request, whosever it is; None when unknown or no longer kept.

        Raises:
            StoreError: the store could not be reached.
        """
        await self._appended([request_id])
        with store_errors("look up an episode"):
            tenants = sorted({shelf.tenant for shelf in await self._shelves()})
            owner = await self._by_request.owner(tenants, request_id)
        return None if owner is None else await self.get(owner, request_id)

    async def claim(
        self, languages: Sequence[str], num_prompts: int, *, seed: int, selection: Selection | None = None
    ) -> list[Claim]:
        """See agent.ports.ClaimingJournal.claim. No languages means all.

        Within a language the unclaimed episodes of every tenant go first, then prompts at random: those that the run
        has not claimed, and then those that it has claimed least. ``seed`` also chooses which languages go first when
        there are more than prompts: vary it by call.

        Raises:
            StoreError: the store could not be reached.
        """
        rng = random.Random(seed)
        chosen = selection or Selection()
        with store_errors("hand out episodes"):
            by_language: dict[str, list[TenantDraw]] = {}
            for shelf in filter(lambda shelf: chosen.admits(shelf.tenant), await self._drawn_shelves(languages)):
                draw = await self._tenant_draw(shelf, num_prompts, rng, chosen)
                by_language.setdefault(shelf.language, []).append(draw)
            draws = [LanguageDraw(shuffled(tenants, rng)) for tenants in by_language.values()]
            return await take_turns(shuffled(draws, rng), num_prompts)

    async def reclaim(self, handles: Sequence[str]) -> list[Claim]:
        """See agent.ports.ClaimingJournal.reclaim: claims that another process of this node left are taken over.

        Raises:
            StoreError: the store could not be reached.
        """
        claims = []
        with store_errors("hand out episodes again"):
            for handle in handles:
                key, _, entry_id = handle.partition(" ")
                episode = await self._stream_at(key).claim_again(entry_id)
                if episode is not None:
                    claims.append(Claim(episode, handle))
        return claims

    async def settle(self, claims: Sequence[Claim]) -> None:
        """Mark claims as done; settling twice is harmless.

        Raises:
            StoreError: the store could not be reached.
        """
        by_key: dict[str, list[str]] = {}
        for claim in claims:
            key, _, entry_id = claim.handle.partition(" ")
            by_key.setdefault(key, []).append(entry_id)
        with store_errors("settle episodes"):
            for key, entry_ids in by_key.items():
                await self._stream_at(key).settle(*entry_ids)

    async def held_out(self, languages: Sequence[str], num_prompts: int, *, tenant: str | None = None) -> list[Episode]:
        """Up to ``num_prompts`` of the newest held-out episodes, each with another prompt, balanced by language, then
        by tenant unless one is named; the same ones while the journal does not grow. No languages means all.

        Raises:
            StoreError: the store could not be reached.
        """
        by_language: dict[str, list[list[Episode]]] = {}
        with store_errors("read held-out episodes"):
            for shelf in await self._drawn_shelves(languages):
                if tenant not in (None, shelf.tenant):
                    continue
                newest = await self._stream(shelf, Split.HELD).newest(_REPEATS_READ * num_prompts)
                by_language.setdefault(shelf.language, []).append(newest)
        return _interleave([_distinct(_interleave(tenants)) for tenants in by_language.values()])[:num_prompts]

    async def count(self) -> dict[tuple[str, str, Split], int]:
        """Number of episodes kept, by (tenant, language, split).

        Raises:
            StoreError: the store could not be reached.
        """
        with store_errors("count episodes"):
            return {
                (shelf.tenant, shelf.language, split): await self._stream(shelf, split).count()
                for shelf in await self._shelves()
                for split in Split
            }

    @contextmanager
    def _under_way(self, episode_id: str) -> Iterator[None]:
        ended = self._appending[episode_id] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            ended.set_result(None)
            if self._appending.get(episode_id) is ended:
                del self._appending[episode_id]

    async def _appended(self, episode_ids: Iterable[str]) -> None:
        """Wait for the appends of these episodes that are under way."""
        under_way = [self._appending[name] for name in episode_ids if name in self._appending]
        if under_way:
            await asyncio.wait(under_way)

    async def _shelves(self, languages: Sequence[str] = ()) -> list[Shelf]:
        members = cast("set[str]", await self._redis.smembers(_REGISTRY))
        shelves = [Shelf(*member.split(" ")) for member in sorted(members)]
        return [shelf for shelf in shelves if not languages or shelf.language in languages]

    async def _drawn_shelves(self, languages: Sequence[str]) -> list[Shelf]:
        return [shelf for shelf in await self._shelves(languages) if self._is_served(shelf.tenant)]

    def _stream(self, shelf: Shelf, split: Split) -> EpisodeStream:
        return self._stream_at(shelf.key(split))

    def _stream_at(self, key: str) -> EpisodeStream:
        return EpisodeStream(self._redis, key, self._codec, consumer=self._consumer, on_corrupt=self._on_corrupt)

    async def _tenant_draw(
        self, shelf: Shelf, num_prompts: int, rng: random.Random, selection: Selection
    ) -> TenantDraw:
        stream = self._stream(shelf, Split.TRAIN)
        await stream.open_group()
        abandoned = await stream.abandoned(
            idle_ms=self._abandoned_after_ms, sole_user=self._sole_user, count=_MAX_PENDING_READ
        )
        count = await stream.num_prompts()
        # Among that many there are num_prompts that neither the run has taken nor this claim passes over.
        ranks = rng.sample(range(count), min(count, selection.num_prompts + 2 * num_prompts + MAX_PASSED_OVER))
        idle_ms = 0 if self._sole_user else self._abandoned_after_ms
        return TenantDraw(shelf.tenant, stream, deque(abandoned), idle_ms, ranks, selection)


def _interleave(rows: Sequence[Sequence[Item]]) -> list[Item]:
    """The first of every row, then the second of every row, and so on."""
    return [item for column in zip_longest(*rows) for item in column if item is not None]


def _distinct(episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes of one language without those that repeat an earlier prompt."""
    by_prompt: dict[tuple[str, str, str], Episode] = {}
    for episode in episodes:
        by_prompt.setdefault((episode.brief.kind, episode.brief.instructions, episode.brief.text), episode)
    return list(by_prompt.values())
