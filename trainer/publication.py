"""A publication is a transaction:

    parity probe → write (fsync, rename) → read back and check → record → flip

By method ``adapter`` any failure before the flip leaves the previous version serving, and the flip itself cannot fail:
it changes which adapter new requests name. Requests in flight finish on their own version. By method ``full`` the
candidate serves already (trainer.live), and the flip makes it the version to go back to; after a failure the run that
published goes back to the one before.
"""

import asyncio
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from agent.completion import BASE_VERSION
from agent.errors import ColoqError, NotFound, PublicationFailed
from trainer.parity import ParityProbe
from trainer.policy_folder import policy_folder, read_metadata
from trainer.ports import Method, PolicyLedger, PolicyMetadata, PolicySink, TrainerPort
from trainer.records import Evaluation, PolicyRecord

log = structlog.get_logger(__name__)


class Placement(Protocol):
    """How versions get into the engine: trainer.adapters.AdapterSlots or trainer.live.LiveWeights."""

    @property
    def method(self) -> Method: ...

    def forget_all(self) -> None:
        """A new engine process holds no version but the base model."""
        ...

    async def ensure(self, version: int) -> None:
        """Make sure that a written version can be switched to.

        Raises:
            PublicationFailed: its folder is missing or damaged.
            Conflict: a run is in the way.
        """
        ...

    async def switch(self, version: int) -> None:
        """Serve an ensured version, or one that a run has made ready. Raises as ``ensure`` does."""
        ...


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes candidates, rolls back and forward, and restores the active policy when an engine starts."""

    trainer: TrainerPort
    placement: Placement
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
        """Publish a candidate that the engine can sample from.

        Raises:
            ParityFailed: engine and trainer disagree.
            PublicationFailed: the policy could not be written or does not read back.
            StoreError: the ledger could not be reached.
        """
        parity = await self.probe.check(version)
        folder = policy_folder(self.root, version)
        method = self.placement.method
        written = await self.trainer.save(folder, PolicyMetadata(version, parent, run_id, self.base_model, method))
        read = await self.trainer.verify(folder)
        if read != written:
            raise PublicationFailed(f"policy v{version} must read back as {written[:12]}…, got {read[:12]}…")
        record = PolicyRecord(
            version=version,
            method=method,
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

    async def is_published(self, version: int) -> bool:
        """True when the ledger has a row of ``version``, the base model's among them. Raises StoreError."""
        try:
            await self.ledger.policy(version)
        except NotFound:
            return False
        return True

    async def drop_unrecorded(self, version: int) -> None:
        """Delete what a publication that was cut short has written of a version that the ledger knows nothing of."""
        await asyncio.to_thread(shutil.rmtree, policy_folder(self.root, version), ignore_errors=True)

    async def activate(self, version: int) -> PolicyRecord:
        """Roll back or forward to a published version, or to the base model (0).

        Raises:
            NotFound: no such published version.
            Conflict: a run trains the weights that serve.
            PublicationFailed: its folder is missing or damaged; the active version goes on serving.
        """
        record = await self.ledger.policy(version)
        await self._ensure(version)
        previous = self.sink.active_version
        await self._flip(version)
        log.info("policy_activated", version=version, previous=previous)
        return record

    async def restore(self) -> None:
        """Serve the ledger's active policy in a fresh engine; the newest readable one when it is damaged."""
        self.placement.forget_all()
        wanted = await self.ledger.active_version()
        older = [record.version for record in await self.ledger.policies() if record.version < wanted]
        for version in dict.fromkeys([wanted, *older, BASE_VERSION]):
            try:
                await self._ensure(version)
                await self.placement.switch(version)
            except PublicationFailed as error:
                log.error("policy_unreadable", version=version, reason=str(error))
                continue
            if version != wanted:
                log.error("policy_fallback", wanted=wanted, version=version)
            return

    async def list(self) -> list[PolicyRecord]:
        """Published policies, newest first, the base model last."""
        return await self.ledger.policies()

    async def _flip(self, version: int) -> None:
        """First what a restart would serve, then what is served; both or none."""
        previous = await self.ledger.active_version()
        await self.ledger.set_active_version(version)
        try:
            await self.placement.switch(version)
        except ColoqError:
            await self.ledger.set_active_version(previous)
            raise

    async def _ensure(self, version: int) -> None:
        if version != BASE_VERSION:
            self._check_fit(read_metadata(policy_folder(self.root, version)))
        await self.placement.ensure(version)

    def _check_fit(self, policy: PolicyMetadata) -> None:
        if policy.base_model != self.base_model:
            raise PublicationFailed(
                f"policy v{policy.version} belongs to {policy.base_model}, this node serves {self.base_model}"
            )
        if policy.method != self.placement.method:
            raise PublicationFailed(
                f"policy v{policy.version} was made by method {policy.method}, this node's is {self.placement.method}"
            )
