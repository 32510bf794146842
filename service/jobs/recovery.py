"""Keeps a node's claims alive, and takes over those of nodes that are gone.

each beat:        renew what this node has in hand ─► stop what another one finished, cancelled or took over
each half lease:  XAUTOCLAIM in every lane ─► run again, tell again
"""

import asyncio

import structlog

from agent.errors import StoreError
from service.jobs.announcer import Announcer
from service.jobs.ports import JobStore
from service.jobs.records import Lane
from service.jobs.runner import JobRunner

log = structlog.get_logger(__name__)

_BEAT_S = 1.0
_IDLE_BEAT_S = 5.0
"""Of a node with nothing in hand, on a store that no other node uses: whatever comes pokes runner and announcer."""
_CONSUMER_IDLE_S = 86_400.0


class Recovery:
    """The background loop of one node's jobs.

    Args:
        sole_user: no other node uses the store, so what an earlier process left is taken over without waiting.
    """

    def __init__(
        self, store: JobStore, runner: JobRunner, announcer: Announcer, *, lease_s: float, sole_user: bool
    ) -> None:
        self._store = store
        self._runner = runner
        self._announcer = announcer
        self._lease_s = lease_s
        self._sole_user = sole_user

    async def run(self) -> None:
        """Never ends by itself; a store that is away is waited for."""
        loop = asyncio.get_running_loop()
        idle_s, due_s = (0.0 if self._sole_user else self._lease_s), loop.time()
        while True:
            try:
                await self.renew()
                if loop.time() >= due_s:
                    await self.take_over(idle_s)
                    idle_s, due_s = self._lease_s, loop.time() + self._lease_s / 2
            except StoreError as error:
                log.warning("jobs_not_watched", reason=str(error))
            except Exception as error:  # noqa: BLE001 - without this loop claims run out and jobs run twice
                log.error("jobs_watch_broke", error=type(error).__name__)
            self._runner.poke()
            self._announcer.poke()
            is_idle = self._sole_user and not self._runner.claims
            await asyncio.sleep(min(_IDLE_BEAT_S if is_idle else _BEAT_S, self._lease_s / 4))

    async def renew(self) -> None:
        """Tell that the jobs in hand are in hand, and let go of those that are not ours any more."""
        claims = self._runner.claims
        if not claims:
            return
        for job_id in await self._store.renew(claims, self._runner.consumer):
            self._runner.stop(job_id)

    async def take_over(self, idle_s: float) -> None:
        """Go on with what was left for ``idle_s``."""
        consumer = self._runner.consumer
        for lane in (Lane.HELD, Lane.QUEUED):
            for claim in await self._store.take_over(lane, consumer, idle_s=idle_s):
                log.info("job_taken_over", job=claim.job_id, tenant=claim.tenant)
                self._runner.start(claim)
        for claim in await self._store.take_over(Lane.FINISHED, consumer, idle_s=idle_s):
            await self._announcer.announce(claim)
        await self._store.forget_idle_consumers(consumer, idle_s=0.0 if idle_s == 0 else _CONSUMER_IDLE_S)
