"""A journal that a run draws from, with a record of every draw, so that a resumed run draws the same prompts.

    claim(seed) ──► drawn before the crash? ── yes ──► the same episodes, whatever came into the journal since
                                             └─ no ──► the journal's own draw ──► one line of claims.jsonl, synced

A line is ``{"seed": …, "handles": […]}``. A draw is known by its seed, which no other draw of a run has.
"""

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path

from agent.episode import Episode
from agent.errors import StoreError
from agent.ports import Claim, ClaimingJournal

_SETTLED_AGAIN = 20
"""Newest draws before a checkpoint whose claims are settled again: a store that a power cut takes a second from may
have lost that they were."""


class ClaimLog:
    """A ``ClaimingJournal`` over another one. Records nothing until a run begins."""

    def __init__(self, journal: ClaimingJournal) -> None:
        self._journal = journal
        self._path: Path | None = None
        self._again: dict[int, list[str]] = {}
        self.num_draws = 0
        """Lines of the run's record: the run's position in the journal."""

    async def begin(self, path: Path) -> None:
        """Record the draws of a run in a new file at ``path``. Raises StoreError."""
        await self._open(path, num_drawn=0)

    async def resume(self, path: Path, num_draws: int) -> None:
        """Go on with a run whose checkpoint was taken after ``num_draws`` draws; later ones are to be repeated.

        Raises:
            StoreError: the record cannot be read, or the journal could not be reached.
        """
        lines = await self._open(path, num_drawn=num_draws)
        settled = [handle for _, handles in lines[:num_draws][-_SETTLED_AGAIN:] for handle in handles]
        await self._journal.settle(await self._journal.reclaim(settled))

    def end(self) -> None:
        """The run is over: record no more."""
        self._path = None
        self._again.clear()

    async def claim(self, languages: Sequence[str], num_prompts: int, *, seed: int) -> list[Claim]:
        """See ClaimingJournal.claim; the same episodes as before when this draw is to be repeated.

        Raises:
            StoreError: also when the draw cannot be recorded.
        """
        handles = self._again.pop(seed, None)
        claims = await (
            self._journal.claim(languages, num_prompts, seed=seed)
            if handles is None
            else self._journal.reclaim(handles)
        )
        if self._path is not None:
            line = json.dumps({"seed": seed, "handles": [claim.handle for claim in claims]})
            await asyncio.to_thread(_append, self._path, line)
            self.num_draws += 1
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

    async def held_out(self, languages: Sequence[str], num_prompts: int) -> list[Episode]:
        """See ClaimingJournal.held_out."""
        return await self._journal.held_out(languages, num_prompts)

    async def _open(self, path: Path, *, num_drawn: int) -> list[tuple[int, list[str]]]:
        lines = await asyncio.to_thread(_read, path)
        self._path, self.num_draws = path, len(lines)
        self._again = dict(lines[num_drawn:])
        return lines


def _append(path: Path, line: str) -> None:
    try:
        with path.open("a") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"the claims of {path.parent.name} cannot be recorded: {error}") from error


def _read(path: Path) -> list[tuple[int, list[str]]]:
    """Seeds and handles of every whole line; a last line that was cut off is taken away. Makes a file that is not
    there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            file.seek(0)
            text = file.read()
            whole = text[: text.rfind("\n") + 1]
            file.truncate(len(whole.encode()))
        return [(line["seed"], line["handles"]) for line in map(json.loads, whole.splitlines())]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"the claims of {path.parent.name} cannot be read: {error}") from error
