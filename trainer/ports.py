"""The seams that the tuning loop consumes, as Protocols. Their fakes ship in trainer.fakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainer.batch import TrainingBatch
from trainer.records import PolicyRecord, RunStatus


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """What the learner needs to know for one run."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    clip_low: float
    clip_high: float
    importance_cap: float
    microbatch_size: int
    logit_chunk_tokens: int
    seed: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """One optimizer step, as the learner measured it. All finite."""

    loss: float
    grad_norm: float
    """2-norm before clipping."""
    clip_fraction: float
    effective_sample_size: float
    mismatch_mean: float
    """Mean |engine logprob - trainer logprob| over the trained tokens, in nats."""
    duration_s: float


@dataclass(frozen=True, slots=True)
class PolicyMetadata:
    """What a policy's manifest says beside its files."""

    version: int
    parent: int
    run_id: str
    base_model: str


class TrainerPort(Protocol):
    """The learner in the engine process, one command at a time.

    Every method raises TrainerFailed when the learner raised, EngineDead when the engine process is gone.
    """

    async def begin(self, settings: LearnerSettings, parent: Path | None) -> None:
        """Start from a published policy's folder, or from a fresh adapter, with a fresh optimizer."""
        ...

    async def step(self, batch: TrainingBatch, version: int) -> StepResult:
        """Take one optimizer step and keep the result as ``version``, ready to install.

        Raises:
            TrainerFailed: also when the loss or the gradient is not finite; the weights are then unchanged.
        """
        ...

    async def logprobs(self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]]) -> list[list[float]]:
        """Log-probability of every reply token under the newest weights, at temperature 1."""
        ...

    async def install(self, version: int) -> None:
        """Put a kept version into an adapter slot of the engine, from memory."""
        ...

    async def remove(self, version: int) -> None:
        """Free a version's adapter slot and its kept weights. No request may be running on it."""
        ...

    async def save(self, folder: Path, metadata: PolicyMetadata) -> str:
        """Write a kept version durably (temporary folder, fsync, rename); returns the manifest's sha256."""
        ...

    async def load(self, folder: Path, version: int) -> str:
        """Read a written version, check every digest and keep it, ready to install; returns the manifest's sha256."""
        ...


class PolicySink(Protocol):
    """The serving side of a publication."""

    @property
    def active_version(self) -> int:
        """The version that new live requests run on."""
        ...

    def activate(self, version: int) -> None:
        """Send new live requests to an installed version. Requests in flight finish on their own."""
        ...

    async def drained(self, version: int) -> None:
        """Return once no request runs on ``version``."""
        ...


class PolicyLedger(Protocol):
    """The durable record of versions, policies and runs. Every method raises StoreError."""

    async def next_version(self) -> int:
        """A version number never given out before, rising across restarts; the first is 1."""
        ...

    async def record(self, policy: PolicyRecord) -> None:
        """Append one published policy."""
        ...

    async def policy(self, version: int) -> PolicyRecord:
        """One published policy. Raises NotFound."""
        ...

    async def policies(self) -> list[PolicyRecord]:
        """Published policies, newest first, the base model last."""
        ...

    async def active_version(self) -> int:
        """The version to serve after a restart; 0 is the base model."""
        ...

    async def set_active_version(self, version: int) -> None: ...

    async def save_run(self, status: RunStatus) -> None: ...

    async def run(self, run_id: str) -> RunStatus:
        """One run's latest status. Raises NotFound."""
        ...

    async def runs(self) -> list[RunStatus]:
        """Newest first."""
        ...
