"""Tells tenants what happens to the node: tuning runs that end, policies that take over.

Which policy answers is read from the ledger, whenever somebody says that it may be another one and now and then, so
that no switch goes untold: neither a rollback, nor one just before a crash. What was told last stands in the store, at
`node:webhooks:policy`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import cast

import structlog

from agent.errors import StoreError
from service.canary.records import TrialRecord
from service.store import Store, store_errors
from service.stored_record import RecordCodec
from service.webhooks.deliveries import Deliveries
from service.webhooks.events import EventType
from trainer.records import RunState, RunStatus

log = structlog.get_logger(__name__)

_TOLD = "node:webhooks:policy"
_POLL_S = 30.0
"""Between looks at which policy answers, when nobody says that it may be another one."""
_STORE_DOWN_S = 2.0
_FINISH_S = 5.0


@dataclass(frozen=True, slots=True)
class _Told:
    """The last announcement of a policy."""

    number: int
    """Of announcements so far: names the next one, so that it is told once."""
    version: int
    newest: int
    """Highest version that was ever announced."""


class Announcements:
    """Queues events of the node for every tenant that wants them."""

    def __init__(self, deliveries: Deliveries, store: Store, active_version: Callable[[], Awaitable[int]]) -> None:
        """``active_version`` reads the ledger."""
        self._deliveries = deliveries
        self._redis = store.redis
        self._active_version = active_version
        self._codec = RecordCodec(_Told)
        self._tasks: set[asyncio.Task[None]] = set()
        self._look = asyncio.Event()

    def run_ended(self, status: RunStatus) -> None:
        """Tell that a tuning run has ended; returns at once. Reasons stay inside: they may name other tenants.

        Nothing is told of an interrupted run, which can be resumed: an event names its run, and there is one for each.
        """
        if status.state is RunState.INTERRUPTED:
            return
        data = {"id": status.id, "state": status.state.value, "published": list(status.published)}
        self._tell_soon(EventType.TUNING_RUN_FINISHED, data, status.id)

    def canary_started(self, record: TrialRecord) -> None:
        """Tell that a share of the traffic gets another policy; returns at once."""
        data = {
            "id": record.id,
            "version": record.candidate,
            "stable_version": record.stable,
            "share": record.share,
            "languages": list(record.languages),
        }
        self._tell_soon(EventType.CANARY_STARTED, data, f"{record.id}-started")

    def canary_ended(self, record: TrialRecord) -> None:
        """Tell what became of a canary or a watch; returns at once. Reasons stay inside."""
        data = {
            "id": record.id,
            "kind": record.kind.value,
            "version": record.candidate,
            "stable_version": record.stable,
            "outcome": None if record.outcome is None else record.outcome.value,
        }
        self._tell_soon(EventType.CANARY_ENDED, data, f"{record.id}-ended")

    def _tell_soon(self, event_type: EventType, data: Mapping[str, object], event_id: str) -> None:
        task = asyncio.create_task(self._tell(event_type, data, event_id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def policy_may_be_another(self) -> None:
        """Have `watch_policy` look at once. Call it on the event loop."""
        self._look.set()

    async def watch_policy(self) -> None:
        """Tell, for ever, when another policy answers."""
        while True:
            self._look.clear()
            wait_s = _POLL_S
            try:
                await self.tell_policy()
            except StoreError as error:
                wait_s = _STORE_DOWN_S
                log.warning("policy_not_announced", reason=str(error))
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._look.wait()

    async def tell_policy(self) -> None:
        """Tell which policy answers, unless it is the one that was told last. The first look tells nothing.

        Raises:
            StoreError: the store could not be reached; the next look tells it.
        """
        version = await self._active_version()
        with store_errors("read the announced policy"):
            text = cast("str | None", await self._redis.get(_TOLD))
        told = _Told(0, version, version) if text is None else self._codec.decode(text)
        if told.version != version:
            new = version > told.newest
            event_type = EventType.POLICY_PUBLISHED if new else EventType.POLICY_ACTIVATED
            data = {"version": version, "previous_version": told.version}
            await self._deliveries.broadcast(event_type, data, event_id=f"policy-{told.number}-{version}")
            told = _Told(told.number + 1, version, max(version, told.newest))
        elif text is not None:
            return
        with store_errors("note the announced policy"):
            await self._redis.set(_TOLD, self._codec.encode(told))

    async def close(self) -> None:
        """Wait a little for what is being queued."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_FINISH_S)

    async def _tell(self, event_type: EventType, data: Mapping[str, object], event_id: str) -> None:
        try:
            await self._deliveries.broadcast(event_type, data, event_id=event_id)
        except StoreError as error:
            log.error("event_not_queued", event_type=event_type.value, reason=str(error))
