"""A publication is a transaction:

    parity probe → write (fsync, rename) → read back and check → record → flip

Any failure before the flip leaves the previous version serving. The flip itself cannot fail: it changes which adapter
new requests name. Requests in flight finish on their own version.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

from agent.completion import BASE_VERSION
from agent.errors import PublicationFailed
from trainer.adapters import AdapterSlots
from trainer.parity import ParityProbe
from trainer.policy_folder import policy_folder, read_metadata
from trainer.ports import PolicyLedger, PolicyMetadata, PolicySink, TrainerPort
from trainer.records import Evaluation, PolicyRecord

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes candidates, rolls back and forward, and restores the active policy when an engine starts."""

    trainer: TrainerPort
    slots: AdapterSlots
    sink: PolicySink
    ledger: PolicyLedger
    probe: ParityProbe
    root: Path
    """Folder of all written policies."""
    base_model: str
    """Name of the model that policies belong to."""

    @property
    def active_version(self) -> int:
        return self.sink.active_version

    async def publish(self, version: int, *, parent: int, run_id: str, evaluation: Evaluation | None) -> PolicyRecord:
        """Publish an installed candidate.

        Raises:
            ParityFailed: engine and trainer disagree.
            PublicationFailed: the policy could not be written or does not read back.
            StoreError: the ledger could not be reached.
        """
        parity = await self.probe.check(version)
        folder = policy_folder(self.root, version)
        written = await self.trainer.save(folder, PolicyMetadata(version, parent, run_id, self.base_model))
        read = await self.trainer.load(folder, version)
        if read != written:
            raise PublicationFailed(f"policy v{version} must read back as {written[:12]}…, got {read[:12]}…")
        record = PolicyRecord(
            version=version,
            method="adapter",
            parent=parent,
            run_id=run_id,
            created_at=datetime.now(UTC),
            sha256=written,
            parity=parity,
            evaluation=evaluation,
        )
        await self.ledger.record(record)
        await self._flip(version)
        log.info("policy_published", version=version, parent=parent, parity_mean=round(parity.mean, 5))
        return record

    async def activate(self, version: int) -> PolicyRecord:
        """Roll back or forward to a published version, or to the base model (0).

        Raises:
            NotFound: no such published version.
            PublicationFailed: its folder is missing or damaged; the active version goes on serving.
        """
        record = await self.ledger.policy(version)
        await self._ensure(version)
        previous = self.sink.active_version
        await self._flip(version)
        log.info("policy_activated", version=version, previous=previous)
        return record

    async def restore(self) -> None:
        """Install the ledger's active policy in a fresh engine; the newest readable one when it is damaged."""
        self.slots.forget_all()
        wanted = await self.ledger.active_version()
        older = [record.version for record in await self.ledger.policies() if record.version < wanted]
        for version in dict.fromkeys([wanted, *older, BASE_VERSION]):
            try:
                await self._ensure(version)
            except PublicationFailed as error:
                log.error("policy_unreadable", version=version, reason=str(error))
                continue
            self.sink.activate(version)
            if version != wanted:
                log.error("policy_fallback", wanted=wanted, version=version)
            return

    async def list(self) -> list[PolicyRecord]:
        """Published policies, newest first, the base model last."""
        return await self.ledger.policies()

    async def _flip(self, version: int) -> None:
        await self.ledger.set_active_version(version)
        self.sink.activate(version)

    async def _ensure(self, version: int) -> None:
        if version != BASE_VERSION:
            made_for = read_metadata(policy_folder(self.root, version)).base_model
            if made_for != self.base_model:
                raise PublicationFailed(f"policy v{version} belongs to {made_for}, this node serves {self.base_model}")
        await self.slots.ensure(version)
