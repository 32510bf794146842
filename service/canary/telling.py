"""Tells of canaries: metrics at once, the audit log and the tenants' webhooks in tasks of their own."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import structlog

from agent.errors import StoreError
from service.canary.comparison import Difference
from service.canary.metrics import CanaryMetrics
from service.canary.records import Kind, TrialRecord
from service.stored_record import RecordCodec
from service.tenancy.audit import AuditEntry, AuditLog, digest
from service.webhooks.announcements import Announcements

log = structlog.get_logger(__name__)

ACTOR = "node"
"""Who acts in the audit log when no key did."""


class CanaryTelling:
    """service.canary.ports.TrialEvents of a node."""

    def __init__(self, metrics: CanaryMetrics, announcements: Announcements, audit: AuditLog) -> None:
        self._metrics, self._announcements, self._audit = metrics, announcements, audit
        self._codec = RecordCodec(TrialRecord)
        self._tasks: set[asyncio.Task[None]] = set()

    def started(self, record: TrialRecord) -> None:
        """See TrialEvents.started. A watch gives nobody another policy, so tenants hear of its end alone."""
        self._metrics.started(record)
        if record.kind is Kind.CANARY:
            self._announcements.canary_started(record)
        self._note(record, f"{record.kind.value}_started")

    def resumed(self, record: TrialRecord) -> None:
        """See TrialEvents.resumed. Nothing has changed for anybody."""
        self._metrics.started(record)

    def compared(self, record: TrialRecord, differences: Sequence[Difference]) -> None:
        """See TrialEvents.compared."""
        self._metrics.compared(differences)

    def ended(self, record: TrialRecord) -> None:
        """See TrialEvents.ended."""
        self._metrics.ended(record)
        self._announcements.canary_ended(record)
        outcome = "ended" if record.outcome is None else record.outcome.value
        self._note(record, f"{record.kind.value}_{outcome}")

    async def close(self) -> None:
        """Wait for what is being written."""
        await asyncio.gather(*self._tasks)

    def _note(self, record: TrialRecord, action: str) -> None:
        task = asyncio.create_task(self._append(record, action))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _append(self, record: TrialRecord, action: str) -> None:
        entry = AuditEntry(
            at=datetime.now(UTC),
            actor=ACTOR,
            tenant=None,
            action=action,
            path="/admin/canary",
            status=200,
            request_id=record.id,
            before=None,
            after=digest(self._codec.encode(record)),
        )
        try:
            await self._audit.append(entry)
        except StoreError as error:
            log.error("audit_entry_not_stored", reason=str(error), actor=ACTOR, action=action, trial=record.id)
