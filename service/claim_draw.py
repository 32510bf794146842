"""Draws from the journal for one claim: by language in turn, and within a language by tenant in turn.

fresh: abandoned claims, then unread episodes ─► prompts that are new to the run ─► prompts that it has claimed least
"""

import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from agent.episode import Episode
from agent.ports import Claim
from agent.selection import PassedOver, Selection
from service.episode_stream import Entry, EpisodeStream

MAX_PASSED_OVER = 256
"""Episodes of one tenant and language that one claim looks past; then it draws from the prompts, where each is once."""
_FIRST_RANKS = 16

Source = TypeVar("Source")
Item = TypeVar("Item")


class TenantDraw:
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
        self._fresh_left = self._repeated_left = MAX_PASSED_OVER
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


class LanguageDraw:
    """Draws from a language's tenants in turn: what is fresh anywhere, then what is new to the run, then the rest."""

    def __init__(self, tenants: Sequence[TenantDraw]) -> None:
        self._rounds = [(deque(tenants), draw) for draw in (TenantDraw.fresh, TenantDraw.new_to_run, TenantDraw.again)]

    async def next(self) -> Claim | None:
        """The next claim; None when the language has no more."""
        for tenants, draw in self._rounds:
            if claim := await _next_in_turn(tenants, draw):
                return claim
        return None


async def take_turns(languages: Sequence[LanguageDraw], num_prompts: int) -> list[Claim]:
    """Up to ``num_prompts`` claims, one language after the other."""
    turns = deque(languages)
    claims: list[Claim] = []
    while len(claims) < num_prompts and (claim := await _next_in_turn(turns, LanguageDraw.next)):
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


def shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    """The items in another order."""
    return rng.sample(items, len(items))
