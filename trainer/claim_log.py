"""A journal that a run draws from, with a record of every draw, so that a resumed run draws the same prompts.

    claim(seed) ──► drawn before the crash? ── yes ──► the same episodes, whatever came into the journal since
                                             └─ no ──► the journal's own draw ──► one line of claims.jsonl, synced

A line is a Draw. It is known by its seed, which no other draw of a run has.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from agent.episode import Episode
from agent.errors import StoreError
from agent.ports import Claim, ClaimingJournal
from agent.selection import PassedOver, Selection

_SETTLED_AGAIN = 20
"""Newest draws before a checkpoint whose claims are settled again: a store that a power cut takes a second from may
have lost that they were."""


class Claimed(msgspec.Struct, frozen=True):
    """One episode that a draw handed out."""

    handle: str
    digest: str
    """Of its prompt."""
    again: bool


class Draw(msgspec.Struct, frozen=True):
    """What one call of ``claim`` handed out, and what it passed over."""

    seed: int
    claims: tuple[Claimed, ...]
    passed_over: dict[PassedOver, int]


class ClaimLog:
    """A ``ClaimingJournal`` over another one. Records nothing until a run begins."""

    def __init__(self, journal: ClaimingJournal) -> None:
        self._journal = journal
        self._path: Path | None = None
        self._again: dict[int, Draw] = {}
        self.num_draws = 0
        """Lines of the run's record: the run's position in the journal."""

    async def begin(self, path: Path) -> None:
        """Record the draws of a run in a new file at ``path``. Raises StoreError."""
        await self._open(path, num_drawn=0)

    async def resume(self, path: Path, num_draws: int) -> Counter[str]:
        """Go on with a run whose checkpoint was taken after ``num_draws`` draws; later ones are to be repeated.

        Returns how often the draws before the checkpoint have claimed each prompt, by its digest.

        Raises:
            StoreError: the record cannot be read, or the journal could not be reached.
        """
        draws = (await self._open(path, num_drawn=num_draws))[:num_draws]
        settled = [claim.handle for draw in draws[-_SETTLED_AGAIN:] for claim in draw.claims]
        await self._journal.settle(await self._journal.reclaim(settled))
        different = {draw.seed: draw for draw in draws}  # one that was repeated has two lines
        return Counter(claim.digest for draw in different.values() for claim in draw.claims)

    def end(self) -> None:
        """The run is over: record no more."""
        self._path = None
        self._again.clear()

    async def claim(
        self, languages: Sequence[str], num_prompts: int, *, seed: int, selection: Selection | None = None
    ) -> list[Claim]:
        """See ClaimingJournal.claim; the same episodes as before when this draw is to be repeated.

        Raises:
            StoreError: also when the draw cannot be recorded.
        """
        selection = selection or Selection()
        drawn = self._again.pop(seed, None)
        if drawn is not None:
            claims = await self._repeat(drawn, selection)
        else:
            before = Counter(selection.passed_over)
            claims = await self._journal.claim(languages, num_prompts, seed=seed, selection=selection)
            drawn = _draw(seed, claims, Counter(selection.passed_over) - before)
        if self._path is not None:
            await asyncio.to_thread(_append, self._path, drawn)
            self.num_draws += 1
        return claims

    async def _repeat(self, drawn: Draw, selection: Selection) -> list[Claim]:
        """The same claims, counted in the step's selection as they were the first time."""
        again = {claim.handle: claim.again for claim in drawn.claims}
        claims = [
            replace(claim, again=again[claim.handle])
            for claim in await self._journal.reclaim([claim.handle for claim in drawn.claims])
        ]
        for claim in claims:
            selection.take(claim.episode)
        for reason, count in drawn.passed_over.items():
            for _ in range(count):
                selection.pass_over(reason)
        return claims

    async def reclaim(self, handles: Sequence[str]) -> list[Claim]:
        """See ClaimingJournal.reclaim."""
        return await self._journal.reclaim(handles)

    async def settle(self, claims: Sequence[Claim]) -> None:
        """See ClaimingJournal.settle."""
        await self._journal.settle(claims)

    async def append(self, episode: Episode) -> None:
        """See Journal.append."""
        await self._journal.append(episode)

    async def held_out(self, languages: Sequence[str], num_prompts: int, *, tenant: str | None = None) -> list[Episode]:
        """See ClaimingJournal.held_out."""
        return await self._journal.held_out(languages, num_prompts, tenant=tenant)

    async def _open(self, path: Path, *, num_drawn: int) -> list[Draw]:
        draws = await asyncio.to_thread(_read, path)
        self._path, self.num_draws = path, len(draws)
        self._again = {draw.seed: draw for draw in draws[num_drawn:]}
        return draws


def _draw(seed: int, claims: Sequence[Claim], passed_over: Counter[str]) -> Draw:
    return Draw(
        seed,
        tuple(Claimed(claim.handle, claim.episode.prompt_digest, claim.again) for claim in claims),
        {PassedOver(reason): count for reason, count in passed_over.items()},
    )


def _append(path: Path, draw: Draw) -> None:
    try:
        with path.open("ab") as file:
            file.write(msgspec.json.encode(draw) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"the claims of {path.parent.name} cannot be recorded: {error}") from error


def _read(path: Path) -> list[Draw]:
    """Every whole line; a last line that was cut off is taken away. Makes a file that is not there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            file.seek(0)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            file.truncate(len(whole))
        return [msgspec.json.decode(line, type=Draw) for line in whole.splitlines()]
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"the claims of {path.parent.name} cannot be read: {error}") from error
