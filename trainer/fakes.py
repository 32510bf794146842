"""Working stand-ins for this package's ports, for tests and for trying a loop without an engine.

Each one keeps its port's contract. Those that are given the same ``events`` list write into it in the order of what
happens, so that tests can assert on the order across ports.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from agent.completion import BASE_VERSION
from agent.errors import ColoqError, NotFound, PublicationFailed, TrainerFailed
from trainer.batch import TrainingBatch
from trainer.pace import Pace, Pulse
from trainer.ports import LearnerSettings, PolicyMetadata, StepResult
from trainer.records import PolicyRecord, RunStatus
from trainer.trail import continued

_BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)


class FakeTrainer:
    """A learner without a model: keeps versions, and scores every token with ``logprob``.

    ``failures`` maps a method's name to what it raises; ``step`` raises before it keeps the version. A ``logprob`` that
    differs from the engine's makes a parity probe fail. Nothing is written: digests come from folders' names. By method
    ``full`` nothing is kept but what ``keep_live`` and the loads keep, and a second step needs the first one published.
    """

    def __init__(self, *, logprob: float = -0.5, events: list[str] | None = None) -> None:
        self.logprob = logprob
        self.events: list[str] = [] if events is None else events
        self.failures: dict[str, ColoqError] = {}
        self.settings: LearnerSettings | None = None
        self.parent: Path | None = None
        self.batches: list[TrainingBatch] = []
        self.kept: set[int] = set()
        self.installed: list[int] = []
        self.live = BASE_VERSION
        """Method ``full``: whose weights the engine serves."""
        self.unpublished: int | None = None
        """Method ``full``: the newest step, while it is not live."""
        self.num_steps_before = 0
        """Steps of the run that ``resume`` went on with."""

    async def prepare(
        self, settings: LearnerSettings, *, max_length: int, reply_tokens: int, temperature: float
    ) -> None:
        """See TrainerPort.prepare."""
        self._enter("prepare")
        self.settings = settings

    async def begin(self, settings: LearnerSettings, parent: Path | None) -> None:
        """See TrainerPort.begin."""
        self._enter("begin", parent.name if parent else "")
        self.settings, self.parent = settings, parent
        self.unpublished = None

    async def step(self, batch: TrainingBatch, version: int) -> StepResult:
        """See TrainerPort.step."""
        self.batches.append(batch)
        self._enter("step", version)
        if self._is_full:
            if self.unpublished is not None:
                raise TrainerFailed(f"version {self.unpublished} must be published before the next step")
            self.unpublished = version
        else:
            self.kept.add(version)
        return StepResult(
            loss=0.0,
            grad_norm=1.0,
            clip_fraction=0.0,
            effective_sample_size=1.0,
            mismatch_mean=0.0,
            duration_s=0.001,
            mismatch_max=0.0,
            entropy=1.0,
            behaviour_kl=0.0,
        )

    async def logprobs(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        """See TrainerPort.logprobs."""
        self._enter("logprobs")
        return [[self.logprob] * len(reply) for _, reply in zip(prompts, replies, strict=True)]

    async def install(self, version: int) -> None:
        """See TrainerPort.install."""
        self._enter("install", version)
        if version not in self.kept or version in self.installed:
            raise PublicationFailed(f"version {version} must be kept and without a slot, got {self.installed}")
        self.installed.append(version)

    async def remove(self, version: int) -> None:
        """See TrainerPort.remove."""
        self._enter("remove", version)
        self.kept.discard(version)
        if version in self.installed:
            self.installed.remove(version)

    async def publish_live(self, version: int) -> float:
        """See TrainerPort.publish_live."""
        self._enter("publish_live", version)
        if version != self.unpublished:
            raise TrainerFailed(f"only the newest step can be published: version {self.unpublished}, got {version}")
        self.live, self.unpublished = version, None
        return 1.5

    async def keep_live(self, version: int) -> None:
        """See TrainerPort.keep_live."""
        self._enter("keep_live", version)
        if version != self.live:
            raise TrainerFailed(f"version {self.live} is live, got {version}")
        self.kept.add(version)

    async def restore_live(self, version: int) -> None:
        """See TrainerPort.restore_live."""
        self._enter("restore_live", version)
        if version not in self.kept:
            raise PublicationFailed(f"version {version} is not kept, only {sorted(self.kept)}")
        self.live = version

    async def forget(self, version: int) -> None:
        """See TrainerPort.forget."""
        self._enter("forget", version)
        self.kept.discard(version)

    async def save(self, folder: Path, metadata: PolicyMetadata) -> str:
        """See TrainerPort.save."""
        self._enter("save", metadata.version)
        at_hand = {self.live} if metadata.method == "full" else self.kept
        if metadata.version not in at_hand:
            raise PublicationFailed(f"version {metadata.version} is not at hand, only {sorted(at_hand)}")
        return _digest(folder)

    async def verify(self, folder: Path) -> str:
        """See TrainerPort.verify."""
        self._enter("verify", folder.name)
        return _digest(folder)

    async def load(self, folder: Path, version: int) -> str:
        """See TrainerPort.load."""
        self._enter("load", version)
        self.kept.add(version)
        return _digest(folder)

    async def checkpoint(self, folder: Path) -> None:
        """See TrainerPort.checkpoint. Writes the number of batches that were trained on."""
        self._enter("checkpoint")
        (folder / "fake.json").write_text(str(self.num_steps_before + len(self.batches)))

    async def resume(self, settings: LearnerSettings, folder: Path, version: int) -> None:
        """See TrainerPort.resume."""
        self._enter("resume", version)
        self.settings = settings
        self.num_steps_before = int((folder / "fake.json").read_text())
        if self._is_full:
            self.unpublished = version
        else:
            self.kept.add(version)

    async def load_base(self) -> None:
        """See TrainerPort.load_base."""
        self._enter("load_base")
        self.kept.add(BASE_VERSION)

    @property
    def _is_full(self) -> bool:
        return self.settings is not None and self.settings.method == "full"

    def _enter(self, method: str, subject: object = "") -> None:
        self.events.append(f"{method} {subject}".strip())
        if method in self.failures:
            raise self.failures[method]


class FakeSink:
    """A serving side on which nothing runs, but for versions in ``busy``: they drain when ``finish`` says so."""

    def __init__(self, *, active: int = BASE_VERSION, events: list[str] | None = None) -> None:
        self.active_version = active
        self.busy: dict[int, asyncio.Event] = {}
        self.events: list[str] = [] if events is None else events

    def announce(self, version: int) -> None:
        """See PolicySink.announce."""
        self.events.append(f"announce {version}")

    def activate(self, version: int) -> None:
        """See PolicySink.activate."""
        self.events.append(f"activate {version}")
        self.active_version = version

    async def drained(self, version: int) -> None:
        """See PolicySink.drained."""
        if version in self.busy:
            await self.busy[version].wait()
        self.events.append(f"drained {version}")

    def occupy(self, version: int) -> None:
        """From now on a request runs on ``version``."""
        self.busy[version] = asyncio.Event()

    def finish(self, version: int) -> None:
        """The request on ``version`` has ended."""
        self.busy.pop(version).set()


class FakeAdmission:
    """Admits while ``open`` is set, as it is at first; ``num_asked`` counts the calls."""

    def __init__(self, *, events: list[str] | None = None) -> None:
        self.events: list[str] = [] if events is None else events
        self.open = asyncio.Event()
        self.open.set()
        self.num_asked = 0

    async def admitted(self) -> None:
        """See Admission.admitted."""
        self.num_asked += 1
        await self.open.wait()
        self.events.append("admitted")


class FakePacedWorker:
    """The worker's side of pacing: keeps every pace, and answers with what its attributes say."""

    def __init__(self, *, partition_sizes: tuple[int, ...] = (16, 48, 80, 132)) -> None:
        self.partition_sizes = partition_sizes
        self.paces: list[Pace] = []
        self.duration_s = 0.1
        self.num_engine_steps = 0
        self.step_ms = (0.0, 0.0, 0.0)
        """p50, p99 and maximum."""
        self.engine_cpu_s = self.device_wait_s = 0.0
        self.train_share = 0.0
        self.num_train_tokens = 0
        self.answer: bytes | None = None
        """What is answered instead of a pulse."""

    def coloq_pace(self, data: bytes) -> bytes:
        """Take a Pace as msgpack, answer with a Pulse as msgpack."""
        self.paces.append(msgspec.msgpack.decode(data, type=Pace))
        if self.answer is not None:
            return self.answer
        p50_ms, p99_ms, max_ms = self.step_ms
        pulse = Pulse(
            duration_s=self.duration_s,
            num_engine_steps=self.num_engine_steps,
            step_p50_ms=p50_ms,
            step_p99_ms=p99_ms,
            step_max_ms=max_ms,
            busy_share=1.0 if self.num_engine_steps else 0.0,
            engine_cpu_s=self.engine_cpu_s,
            device_wait_s=self.device_wait_s,
            train_share=self.train_share,
            num_microbatches=1 if self.num_train_tokens else 0,
            num_train_tokens=self.num_train_tokens,
            num_sms=self.paces[-1].num_sms if self.train_share else 0,
            partition_sizes=self.partition_sizes,
            partition_reason=None if self.partition_sizes else "the device has none",
        )
        return msgspec.msgpack.encode(pulse)


class MemoryLedger:
    """A ledger in memory; ``failures`` maps a method's name to what it raises."""

    def __init__(self, *, events: list[str] | None = None) -> None:
        self.events: list[str] = [] if events is None else events
        self.failures: dict[str, ColoqError] = {}
        self._version = BASE_VERSION
        self._active = BASE_VERSION
        base = PolicyRecord(
            version=BASE_VERSION,
            method="base",
            parent=None,
            run_id=None,
            created_at=_BEGINNING,
            sha256=None,
            parity=None,
            evaluation=None,
        )
        self._trail = [BASE_VERSION]
        self._tenants: dict[str, int] = {}
        self._policies = {BASE_VERSION: base}
        self._runs: dict[str, RunStatus] = {}

    async def next_version(self) -> int:
        """See PolicyLedger.next_version."""
        self._version += 1
        return self._version

    async def record(self, policy: PolicyRecord) -> None:
        """See PolicyLedger.record."""
        self._enter("record", policy.version)
        self._policies[policy.version] = policy

    async def policy(self, version: int) -> PolicyRecord:
        """See PolicyLedger.policy."""
        if version not in self._policies:
            raise NotFound(f"no published policy {version}")
        return self._policies[version]

    async def policies(self) -> list[PolicyRecord]:
        """See PolicyLedger.policies."""
        return [self._policies[version] for version in sorted(self._policies, reverse=True)]

    async def active_version(self) -> int:
        """See PolicyLedger.active_version."""
        return self._active

    async def set_active_version(self, version: int) -> None:
        """See PolicyLedger.set_active_version."""
        self._enter("set_active", version)
        self._active = version
        self._trail = continued(self._trail, version)

    async def trail(self) -> list[int]:
        """See PolicyLedger.trail."""
        return list(self._trail)

    async def tenant_versions(self) -> Mapping[str, int]:
        """See PolicyLedger.tenant_versions."""
        return dict(self._tenants)

    async def set_tenant_version(self, tenant: str, version: int | None) -> None:
        """See PolicyLedger.set_tenant_version."""
        self._enter("set_tenant", f"{tenant} {version}")
        self._tenants = {name: own for name, own in self._tenants.items() if name != tenant}
        if version is not None:
            self._tenants[tenant] = version

    async def save_run(self, status: RunStatus) -> None:
        """See PolicyLedger.save_run."""
        if "save_run" in self.failures:
            raise self.failures["save_run"]
        self._runs.pop(status.id, None)
        self._runs[status.id] = status

    async def run(self, run_id: str) -> RunStatus:
        """See PolicyLedger.run."""
        if run_id not in self._runs:
            raise NotFound(f"no tuning run {run_id}")
        return self._runs[run_id]

    async def runs(self) -> list[RunStatus]:
        """See PolicyLedger.runs."""
        return sorted(self._runs.values(), key=lambda status: status.started_at, reverse=True)

    def _enter(self, method: str, subject: object) -> None:
        self.events.append(f"{method} {subject}")
        if method in self.failures:
            raise self.failures[method]


def _digest(folder: Path) -> str:
    return f"sha256 of {folder.name}"
