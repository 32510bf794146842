"""Keeps episodes: a journal write that outlives the request that caused it, and never fails it."""

import asyncio
from collections.abc import Callable

from agent.episode import Episode
from agent.ports import Journal


class EpisodeKeeper:
    """Appends to a journal. Keeps nothing itself but the writes in flight."""

    def __init__(self, journal: Journal, on_failure: Callable[[str, Exception], None]) -> None:
        """``on_failure`` hears of what could not be kept: the tenant, and why."""
        self._journal = journal
        self._on_failure = on_failure
        self._appends: set[asyncio.Task[None]] = set()

    async def keep(self, episode: Episode) -> None:
        """Append an episode; the write completes even when this call is cancelled."""
        append = asyncio.create_task(self._append(episode))
        self._appends.add(append)
        append.add_done_callback(self._appends.discard)
        await asyncio.shield(append)

    async def drain(self) -> None:
        """Wait for writes whose callers are gone."""
        await asyncio.gather(*self._appends)

    async def _append(self, episode: Episode) -> None:
        try:
            await self._journal.append(episode)
        except Exception as error:  # noqa: BLE001 - a reply outlives any failure to keep it
            self._on_failure(episode.brief.tenant, error)
