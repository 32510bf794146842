"""What an engine process says of itself; without vLLM and torch, which the front process need not load for it."""

from msgspec import Struct


class EngineFacts(Struct, frozen=True):
    """What the front process asks once the engine is up."""

    device: str
    dtype: str
    kv_cache_tokens: int
    num_parameters: int
    """Parameters of the training model, adapters excluded."""
    num_shared: int
    """Those that lie wholly inside the memory of one of the engine's own tensors."""
    untrainable: str | None
    """Why this model cannot be trained here; None when it can."""
    partition_sizes: tuple[int, ...]
    """Lanes of the learner in SMs, ascending; empty on a CPU."""
    partition_reason: str | None
    """Why there are no partitions; None when there are."""
    unfused: str | None
    """Why the training model runs without fused kernels; None when it has them."""
