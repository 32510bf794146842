"""How much of the GPU the trainer may take while the engine works, and what the engine process sees of it.

The front process's controller sends a Pace; the worker answers with a Pulse, the measurements since the last one.
While the engine has been idle for a second the trainer takes the whole GPU, whatever the pace says.
"""

from msgspec import Struct

from trainer.matched_steps import Matched


class Pace(Struct, frozen=True):
    """The controller's order."""

    num_sms: int
    """Streaming multiprocessors of the trainer's partition while the engine is busy: one of the Pulse's sizes. On a
    device without partitions it has no effect."""
    duty: float
    """Share of the time that the trainer may run while the engine is busy, in [0, 1]; 0 pauses it."""
    compares: bool = False
    """Whether the trainer rests for a dozen engine steps in every 300, so that the others have some to be compared
    with."""


class Pulse(Struct, frozen=True):
    """What the worker measured since the last Pulse."""

    duration_s: float
    num_engine_steps: int
    step_p50_ms: float
    """Median time between two consecutive engine steps of a busy engine; 0 when there were none."""
    step_p99_ms: float
    step_max_ms: float
    busy_share: float
    """Share of the time in which the engine had something to run, in [0, 1]."""
    engine_cpu_s: float
    """CPU time of the engine's thread."""
    device_wait_s: float
    """Time that the engine's thread waited for what the device had sampled."""
    train_share: float
    """Share of the time in which a micro-batch was running, in [0, 1]."""
    num_microbatches: int
    num_train_tokens: int
    """Positions that went through forward and backward, padding included."""
    num_sms: int
    """Partition of the newest micro-batch; 0 when none ran."""
    partition_sizes: tuple[int, ...]
    """Sizes that a Pace may name, ascending; the last is the whole GPU. Empty without partitions."""
    partition_reason: str | None
    """Why there are no partitions; None when there are."""
    matched: Matched = Matched()
    """What training cost the engine's steps."""
