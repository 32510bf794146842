"""A publication is a transaction:

    parity probe → write (fsync, rename) → read back and check → record → flip

By method ``adapter`` any failure before the flip leaves the previous version serving, and the flip itself cannot fail:
it changes which adapter new requests name. Requests in flight finish on their own version. By method ``full`` the
candidate serves already (trainer.live), and the flip makes it the version to go back to; after a failure the run that
published goes back to the one before.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import structlog

from agent.completion import BASE_VERSION
from agent.errors import ColoqError, Conflict, NotFound, PublicationFailed
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

    def holds(self, version: int) -> bool:
        """True when the engine can answer a request that names this version."""
        ...


class Releases(Protocol):
    """Decides who gets a version once it is published."""

    def version_of(self, tenant: str) -> int | None:
        """The policy that a tenant has for itself; None when it shares the active one."""
        ...

    async def release(self, record: PolicyRecord) -> bool:
        """Give a version, which the engine holds, to those that it is for; False leaves it to be activated for all.

        Raises:
            StoreError: it could not be noted.
        """
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
    releases: Releases | None = None
    """Who gets what is published; without it, everybody."""
    _switching: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from making sure of a slot until requests are sent there, so that nobody else's slot takes it away."""

    @property
    def active_version(self) -> int:
        return self.sink.active_version

    @property
    def method(self) -> Method:
        return self.placement.method

    def holds(self, version: int) -> bool:
        """True when the engine can answer a request that is sent to this version."""
        return self.placement.holds(version)

    def version_of(self, tenant: str | None) -> int:
        """What a run for this tenant, or for all, begins with and is compared with."""
        own = self.releases.version_of(tenant) if self.releases is not None and tenant is not None else None
        return self.active_version if own is None else own

    async def publish(
        self, version: int, *, parent: int, run_id: str, evaluation: Evaluation | None, tenant: str | None = None
    ) -> PolicyRecord:
        """Publish a candidate that the engine can sample from, to one tenant where one is named.

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
            tenant=tenant,
        )
        await self.ledger.record(record)
        await self._release(record)
        log.info("policy_published", version=version, parent=parent, parity_mean=round(parity.mean, 5))
        return record

    async def complete(self, version: int) -> None:
        """Release a version that was recorded just before the node stopped. Raises as ``activate`` does."""
        record = await self.ledger.policy(version)
        await self.ensure(version)
        await self._release(record)

    async def find(self, version: int) -> PolicyRecord:
        """A published policy. Raises NotFound."""
        return await self.ledger.policy(version)

    async def ensure(self, version: int) -> None:
        """Make sure that the engine holds a published version, without sending anybody to it. Raises as ``activate``
        does."""
        await self.ledger.policy(version)
        async with self._switching:
            await self._ensure(version)

    async def previous(self) -> int | None:
        """The version that was active before the present one; None when that is the first."""
        trail = await self.ledger.trail()
        return trail[-2] if len(trail) > 1 else None

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
            Conflict: a run trains the weights that serve, or the version is one tenant's own.
            PublicationFailed: its folder is missing or damaged; the active version goes on serving.
        """
        record = await self.ledger.policy(version)
        if record.tenant is not None:
            raise Conflict(f"policy v{version} was tuned for tenant {record.tenant} alone and cannot serve all tenants")
        async with self._switching:
            await self._ensure(version)
            previous = self.sink.active_version
            await self._flip(version)
        log.info("policy_activated", version=version, previous=previous)
        return record

    async def restore(self) -> None:
        """Serve the ledger's active policy in a fresh engine; the newest readable one when it is damaged."""
        self.placement.forget_all()
        wanted = await self.ledger.active_version()
        records = await self.ledger.policies()
        older = [record.version for record in records if record.version < wanted and record.tenant is None]
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

    async def served(self, tenant: str | None = None) -> Sequence[PolicyRecord]:
        """Those of the published policies that the engine holds and this tenant may ask for: all tenants' and its own.
        Candidates of a run are not published."""
        records = [record for record in await self.ledger.policies() if record.tenant in (None, tenant)]
        return [record for record in records if self.placement.holds(record.version)]

    async def find_served(self, version: int, tenant: str | None = None) -> PolicyRecord:
        """One of them.

        Raises:
            NotFound: it was never published, the engine does not hold it any longer, or it is another tenant's.
        """
        record = await self.ledger.policy(version)
        if record.tenant not in (None, tenant):
            raise NotFound(f"no policy {version} in the ledger")
        if not self.placement.holds(version):
            raise NotFound(f"policy v{version} was published but is not in the engine now; activate it to serve it")
        return record

    async def _release(self, record: PolicyRecord) -> None:
        if self.releases is None or not await self.releases.release(record):
            await self._flip(record.version)

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
