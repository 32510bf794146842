"""The seams that the tuning loop consumes, as Protocols. Their fakes ship in trainer.fakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from trainer.batch import TrainingBatch
from trainer.objective_settings import ObjectiveSettings
from trainer.records import PolicyRecord, RunStatus

Method = Literal["adapter", "full"]
"""What a policy is: a LoRA adapter beside the base model's weights, or weights of its own in their place."""


CPU_MICROBATCH_TOKENS = 1024
GPU_MICROBATCH_TOKENS = 4096
"""Positions of a micro-batch where the configuration leaves them open."""
_FULL_SIZE_PARAMETERS = 2.5e9
_LEAST_GPU_MICROBATCH_TOKENS = 256


def suiting_microbatch_tokens(num_parameters: int, *, on_gpu: bool) -> int:
    """Positions of a model's micro-batch where the configuration leaves them open.

    On a GPU as many as keep it busy, but for a large model no more than take about a tenth of a second of an H100: a
    micro-batch is never interrupted, on a quarter of the GPU it takes four times as long, and what it keeps for its
    backward pass is memory that the KV cache lacks.
    """
    if not on_gpu:
        return CPU_MICROBATCH_TOKENS
    tokens, bound = GPU_MICROBATCH_TOKENS, GPU_MICROBATCH_TOKENS * _FULL_SIZE_PARAMETERS
    while tokens > _LEAST_GPU_MICROBATCH_TOKENS and tokens * num_parameters > bound:
        tokens //= 2
    return tokens


@dataclass(frozen=True, slots=True)
class LearnerSettings:
    """What the learner needs to know for one run."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]
    learning_rate: float
    weight_decay: float
    max_grad_norm: float
    objective: ObjectiveSettings
    updates_per_batch: int
    reply_tokens: int
    """Longest reply that may be sampled, which dr_grpo divides by."""
    microbatch_tokens: int | None
    logit_chunk_tokens: int
    seed: int
    method: Method = "adapter"
    optimizer: Literal["device", "cpu"] = "device"
    last_good: Literal["host", "gpu"] = "host"
    yield_to_engine: bool = False
    siblings: int = 1
    """Sequences that are expected to share a prompt, which is then computed once for all; 1 computes each for itself.

    Needs a model with trainer.attention's."""

    @property
    def scores_proximal(self) -> bool:
        """True when the first update moves the policy away from what later ones are held near."""
        return self.updates_per_batch > 1 and self.objective.objective == "decoupled"

    @property
    def scores_base(self) -> bool:
        """True when the KL term needs the base model's log-probabilities."""
        return self.objective.kl_weight > 0


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step over a batch, as the learner measured it: means over its updates where nothing else is said.

    Log-probabilities are in nats, at the sampling temperature. None is what a learner does not measure.
    """

    loss: float
    grad_norm: float
    """2-norm before clipping; the largest of the updates."""
    clip_fraction: float
    """Share of the tokens whose gradient the clip removed, by cispo whose weight it bounded."""
    effective_sample_size: float
    """Kish's, of the importance weights between engine and trainer before they are bounded, at the step's start."""
    mismatch_mean: float
    """Mean |engine logprob - trainer logprob| over the trained tokens, at the step's start."""
    duration_s: float
    mismatch_max: float | None = None
    """The largest of a token."""
    entropy: float | None = None
    """Mean over the sampled tokens of the entropy of the whole distribution that each was taken from."""
    behaviour_kl: float | None = None
    """Estimate of KL(behaviour || current) per token (k3)."""
    base_kl: float | None = None
    """Estimate of KL(current || base model) per token (k3); None without a KL term."""


@dataclass(frozen=True, slots=True)
class PolicyMetadata:
    """What a policy's manifest says beside its files."""

    version: int
    parent: int
    run_id: str
    base_model: str
    method: Method = "adapter"


class TrainerPort(Protocol):
    """The learner in the engine process, one command at a time.

    Every method raises TrainerFailed when the learner raised, EngineDead when the engine process is gone. Versions are
    kept in the engine process's memory until they are forgotten: by method ``adapter`` to be installed in a slot, by
    ``full`` to be copied over the live weights, which the engine serves and the learner trains.
    """

    async def prepare(
        self, settings: LearnerSettings, *, max_length: int, reply_tokens: int, temperature: float
    ) -> None:
        """Allocate what runs of these settings need, and capture their CUDA graphs; before the engine takes requests.

        Args:
            max_length: longest sequence, in tokens.
            reply_tokens: longest reply.
        """
        ...

    async def begin(self, settings: LearnerSettings, parent: Path | None) -> None:
        """Start with a fresh optimizer, from a published policy's folder or from a fresh adapter.

        By method ``full`` it starts from the live weights, and ``parent`` is None.
        """
        ...

    async def step(self, batch: TrainingBatch, version: int) -> StepResult:
        """Take one optimizer step. Its result is ``version``, kept and ready to install; by method ``full`` it is ready
        to be published live, which must come before the next step.

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

    async def publish_live(self, version: int) -> float:
        """Method ``full``: make the live weights those of the newest step, which is ``version``, between two engine
        steps; returns the milliseconds for which the engine was held."""
        ...

    async def keep_live(self, version: int) -> None:
        """Method ``full``: keep a copy of the live weights as ``version``, where ``last_good`` says."""
        ...

    async def restore_live(self, version: int) -> None:
        """Method ``full``: make the live weights those of a kept version, between two engine steps.

        Raises:
            PublicationFailed: the version is not kept, or does not fit the model; the live weights are unchanged.
        """
        ...

    async def forget(self, version: int) -> None:
        """Free a version's kept weights; a version that is not kept is left alone."""
        ...

    async def save(self, folder: Path, metadata: PolicyMetadata) -> str:
        """Write a kept version, or by method ``full`` the live weights, durably (temporary folder, fsync, rename);
        returns the manifest's sha256."""
        ...

    async def verify(self, folder: Path) -> str:
        """Check every digest of a written version; returns the manifest's sha256."""
        ...

    async def load(self, folder: Path, version: int) -> str:
        """Read a written version, check every digest and keep it; returns the manifest's sha256."""
        ...

    async def checkpoint(self, folder: Path) -> None:
        """Write what ``resume`` needs into a folder that is there: masters, moments, number of steps. Not synced."""
        ...

    async def resume(self, settings: LearnerSettings, folder: Path, version: int) -> None:
        """Go on with a run of these settings from what ``checkpoint`` wrote, instead of ``begin``.

        Its weights are those of ``version``, kept and ready to install or to be published live, as after its step.
        """
        ...

    async def load_base(self) -> None:
        """Method ``full``: keep the base model's weights as version 0, read from where the engine has them."""
        ...


class Admission(Protocol):
    """Holds back work in the front process that would make live requests wait for Python's lock."""

    async def admitted(self) -> None:
        """Return when a short piece of such work may run: at once, or after some seconds at the most."""
        ...


class PolicySink(Protocol):
    """The serving side of a publication."""

    @property
    def active_version(self) -> int:
        """The version that new live requests run on."""
        ...

    def announce(self, version: int) -> None:
        """Method ``full``: the live weights are about to become those of ``version``. A request that ends from now on
        may have run on them."""
        ...

    def activate(self, version: int) -> None:
        """New live requests run on ``version``, which is installed or live. By method ``adapter`` requests in flight
        finish on their own version, by ``full`` on this one."""
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

    async def trail(self) -> list[int]:
        """The versions that were active one after another, the active one last; one that was rolled back is gone."""
        ...

    async def tenant_versions(self) -> Mapping[str, int]:
        """Tenants that have a policy of their own, and which."""
        ...

    async def set_tenant_version(self, tenant: str, version: int | None) -> None:
        """Give a tenant a policy of its own; None takes it away."""
        ...

    async def save_run(self, status: RunStatus) -> None: ...

    async def run(self, run_id: str) -> RunStatus:
        """One run's latest status. Raises NotFound."""
        ...

    async def runs(self) -> list[RunStatus]:
        """Newest first."""
        ...
