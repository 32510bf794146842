"""Keeps episodes: journal writes that the requests which caused them do not wait for, and that never fail them.

    reply ─► keep: the write begins ─► the caller has its answer
                    └─► … a slow disk, a store that is away … ─► kept, or told to `on_failure`

A store that syncs every write to a disk may take seconds for one while something else writes to that disk; a reply must
not. Who looks for an episode that is being written is made to wait by the journal.
"""

import asyncio
from collections.abc import Callable

from agent.episode import Episode
from agent.errors import StoreError
from agent.ports import Journal

_MOST_UNAWAITED = 1000
"""Writes under way beyond which callers wait for theirs, so that a stuck store cannot fill the memory."""
_DRAIN_S = 15.0


class EpisodeKeeper:
    """Appends to a journal. Keeps nothing itself but the writes in flight."""

    def __init__(
        self,
        journal: Journal,
        on_failure: Callable[[str, Exception], None],
        *,
        most_unawaited: int = _MOST_UNAWAITED,
        drain_s: float = _DRAIN_S,
    ) -> None:
        """``on_failure`` hears of what could not be kept: the tenant, and why."""
        self._journal = journal
        self._on_failure = on_failure
        self._most_unawaited = most_unawaited
        self._drain_s = drain_s
        self._appends: dict[asyncio.Task[None], str] = {}
        """With the tenant."""

    @property
    def num_waiting(self) -> int:
        """Writes that are under way."""
        return len(self._appends)

    async def keep(self, episode: Episode) -> None:
        """Begin to append an episode; the write completes even when this call is cancelled.

        Returns once the append has begun. Waits for its end only while more than ``most_unawaited`` are under way.
        """
        append = asyncio.create_task(self._append(episode))
        self._appends[append] = episode.brief.tenant
        append.add_done_callback(self._appends.pop)
        if len(self._appends) > self._most_unawaited:
            await asyncio.shield(append)
        else:
            await asyncio.sleep(0)  # lets it begin

    async def drain(self) -> None:
        """Wait for the writes that are under way; those that a stuck store has not taken after ``drain_s`` fail."""
        if not self._appends:
            return
        _, left = await asyncio.wait(self._appends, timeout=self._drain_s)
        for append in left:
            tenant = self._appends[append]
            append.cancel()
            self._on_failure(tenant, StoreError("the store did not take the episode before the node stopped"))
        await asyncio.gather(*left, return_exceptions=True)

    async def _append(self, episode: Episode) -> None:
        try:
            await self._journal.append(episode)
        except Exception as error:  # noqa: BLE001 - a reply outlives any failure to keep it
            self._on_failure(episode.brief.tenant, error)
