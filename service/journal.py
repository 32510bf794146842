"""The journal of episodes on the node's store: what tuning draws its prompts from.

    append ─► train ─► claim: abandoned claims, then unread episodes, then random prompts again ─► settle
          └─► held  ─► held_out

A hash of the prompt chooses the split, so one prompt is always on one side. An unread episode that a claim passes over
(a duplicate, a capped end user) counts as read: its prompt comes again once there is nothing unread.
"""

import hashlib
import json
import random
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest
from typing import TypeVar, cast

from agent.brief import Brief
from agent.episode import Episode
from agent.ports import Claim
from agent.selection import PassedOver, Selection
from service.config import StoreConfig
from service.episode_index import EpisodeIndex, requests_key
from service.episode_stream import Entry, EpisodeStream
from service.store import Store, store_errors
from service.stored_record import RecordCodec

_REGISTRY = "node:journal:streams"
"""Set of `<tenant> <language>`: which streams exist."""
_MAX_PENDING_READ = 1000
_MAX_PASSED_OVER = 256
"""Episodes of one tenant and language that one claim looks past; then it draws from the prompts, where each is once."""
_FIRST_RANKS = 16
_REPEATS_READ = 8
"""Held-out episodes read per one that is wanted: repetitions of a prompt are looked past."""

Source = TypeVar("Source")
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

    A payload that cannot be read is reported to ``on_corrupt``, logged and skipped. A claim that nobody settles for
    ``abandoned_after_s`` is handed out again; on an embedded store, which only this node uses, those of an earlier
    process are handed out at once. Of a tenant that is not served any more (``is_served``) nothing is handed out.
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

    async def append(self, episode: Episode) -> None:
        """Store one episode; an id that the journal already has changes nothing.

        Raises:
            StoreError: the store could not take it.
        """
        shelf = Shelf(episode.brief.tenant, episode.brief.language)
        split = split_of(episode.brief, self._held_out_share)
        with store_errors("take an episode"):
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
        with store_errors("look up an episode"):
            return await self._by_request.get_many(tenant, request_ids)

    async def known(self, tenant: str, request_ids: Sequence[str]) -> list[str]:
        """Those of the ids that the tenant's journal keeps, in order.

        Raises:
            StoreError: the store could not be reached.
        """
        with store_errors("look up an episode"):
            return await self._by_request.known(tenant, request_ids)

    async def find(self, request_id: str) -> Episode | None:
        """The episode of that request, whosever it is; None when unknown or no longer kept.

        Raises:
            StoreError: the store could not be reached.
        """
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
            by_language: dict[str, list[_TenantDraw]] = {}
            for shelf in filter(lambda shelf: chosen.admits(shelf.tenant), await self._drawn_shelves(languages)):
                draw = await self._tenant_draw(shelf, num_prompts, rng, chosen)
                by_language.setdefault(shelf.language, []).append(draw)
            draws = [_LanguageDraw(_shuffled(tenants, rng)) for tenants in by_language.values()]
            return await _take_turns(_shuffled(draws, rng), num_prompts)

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
    ) -> "_TenantDraw":
        stream = self._stream(shelf, Split.TRAIN)
        await stream.open_group()
        abandoned = await stream.abandoned(
            idle_ms=self._abandoned_after_ms, sole_user=self._sole_user, count=_MAX_PENDING_READ
        )
        count = await stream.num_prompts()
        # Among that many there are num_prompts that neither the run has taken nor this claim passes over.
        ranks = rng.sample(range(count), min(count, selection.num_prompts + 2 * num_prompts + _MAX_PASSED_OVER))
        idle_ms = 0 if self._sole_user else self._abandoned_after_ms
        return _TenantDraw(shelf.tenant, stream, deque(abandoned), idle_ms, ranks, selection)


class _TenantDraw:
    """Draws from one tenant's stream for one call of ``claim``."""

    def __init__(
        self,
        tenant: str,
        stream: EpisodeStream,
        abandoned: deque[str],
        idle_ms: int,
        ranks: list[int],
        selection: Selection,
    ) -> None:
        self._tenant = tenant
        self._stream = stream
        self._abandoned = abandoned
        self._idle_ms = idle_ms
        self._ranks = ranks
        self._digests: deque[str] = deque()
        self._selection = selection
        self._taken_before: list[str] = []
        """Prompts that were come across and that the run had taken."""
        self._fresh_left = self._repeated_left = _MAX_PASSED_OVER
        """How many more may be looked past."""
        self._capped = False

    async def fresh(self) -> Claim | None:
        """The next abandoned or unread episode that may be taken."""
        while self._fresh_left and self._has_room() and (entry := await self._next_unclaimed()):
            flaw = None if entry.episode is None else self._selection.flaw_of_fresh(entry.episode)
            if entry.episode is not None and flaw is None:
                return self._claim(entry, entry.episode, again=False)
            await self._stream.settle(entry.id)
            if flaw is not None:
                self._fresh_left -= 1
                self._selection.pass_over(flaw)
        return None

    async def new_to_run(self) -> Claim | None:
        """A random prompt that the run has not taken."""
        while self._repeated_left and self._has_room() and (digest := await self._next_digest()):
            if self._selection.times_taken(digest) > 0:
                self._taken_before.append(digest)
            elif claim := await self._repeated(digest):
                return claim
        return None

    async def again(self) -> Claim | None:
        """The prompt that the run has taken least."""
        while self._repeated_left and self._has_room() and self._taken_before:
            digest = min(self._taken_before, key=self._selection.times_taken)
            self._taken_before.remove(digest)
            if claim := await self._repeated(digest):
                return claim
        return None

    async def _next_unclaimed(self) -> Entry | None:
        while self._abandoned:
            if entry := await self._stream.take_over(self._abandoned.popleft(), idle_ms=self._idle_ms):
                return entry
        return await self._stream.read_new()

    async def _next_digest(self) -> str | None:
        """A few are enough unless the run has taken most prompts; then the rest is read."""
        while self._ranks and not self._digests:
            num_ranks = len(self._ranks) if self._taken_before else _FIRST_RANKS
            self._digests.extend(await self._stream.prompts_at(self._ranks[:num_ranks]))
            self._ranks = self._ranks[num_ranks:]
        return self._digests.popleft() if self._digests else None

    async def _repeated(self, digest: str) -> Claim | None:
        if self._selection.holds(digest):
            return None
        entry = await self._stream.of_prompt(digest)
        if entry is None or entry.episode is None:
            return None
        if self._selection.flaw_of_repeated(entry.episode) is None:
            return self._claim(entry, entry.episode, again=True)
        self._repeated_left -= 1
        return None

    def _has_room(self) -> bool:
        room = self._selection.has_room(self._tenant)
        if not room and not self._capped:
            self._capped = True
            self._selection.pass_over(PassedOver.TENANT_CAPPED)
        return room

    def _claim(self, entry: Entry, episode: Episode, *, again: bool) -> Claim:
        self._selection.take(episode)
        return Claim(episode, handle=f"{self._stream.key} {entry.id}", again=again)


class _LanguageDraw:
    """Draws from a language's tenants in turn: what is fresh anywhere, then what is new to the run, then the rest."""

    def __init__(self, tenants: Sequence[_TenantDraw]) -> None:
        self._rounds = [
            (deque(tenants), draw) for draw in (_TenantDraw.fresh, _TenantDraw.new_to_run, _TenantDraw.again)
        ]

    async def next(self) -> Claim | None:
        """The next claim; None when the language has no more."""
        for tenants, draw in self._rounds:
            if claim := await _next_in_turn(tenants, draw):
                return claim
        return None


async def _take_turns(languages: Sequence[_LanguageDraw], num_prompts: int) -> list[Claim]:
    turns = deque(languages)
    claims: list[Claim] = []
    while len(claims) < num_prompts and (claim := await _next_in_turn(turns, _LanguageDraw.next)):
        claims.append(claim)
    return claims


async def _next_in_turn(turns: deque[Source], draw: Callable[[Source], Awaitable[Claim | None]]) -> Claim | None:
    """A claim of the first source that has one; it goes to the end of the row, exhausted ones leave it."""
    while turns:
        source = turns.popleft()
        if claim := await draw(source):
            turns.append(source)
            return claim
    return None


def _shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(items, len(items))


def _interleave(rows: Sequence[Sequence[Item]]) -> list[Item]:
    """The first of every row, then the second of every row, and so on."""
    return [item for column in zip_longest(*rows) for item in column if item is not None]


def _distinct(episodes: Sequence[Episode]) -> list[Episode]:
    """The episodes of one language without those that repeat an earlier prompt."""
    by_prompt: dict[tuple[str, str, str], Episode] = {}
    for episode in episodes:
        by_prompt.setdefault((episode.brief.kind, episode.brief.instructions, episode.brief.text), episode)
    return list(by_prompt.values())
