"""The trainer's lanes: a stream each, on a part of the GPU's multiprocessors (SMs).

    lane 0   32 of 132 SMs   a green context: kernels launched there never occupy more
    lane 1   64              another
    lane 2  104              another
    lane 3  132              the whole GPU, an ordinary stream

The engine's stream has a higher priority, so its kernels go first wherever both may run; a kernel of the trainer that
runs already is not interrupted, which is why it must not be allowed to hold every SM while the engine works.
Where driver or torch have no green contexts there is the whole-GPU lane alone, and a reason. On a CPU there is one lane
without a stream.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

PARTITION_SHARES = (0.25, 0.49, 0.79)
"""Of the GPU's SMs; on an H100: 32, 64 and 104 of 132. Few, since every graph is captured once for each; below the
smallest the pace's duty decides (service.lever)."""
_SM_GRANULE = 8
"""Compute capability 9.0 partitions in groups of eight SMs (CUDA driver API, green contexts)."""


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """Where micro-batches may run."""

    num_sms: int
    """0 on a CPU."""
    stream: torch.cuda.Stream | None
    keep: Any = field(default=None, repr=False)
    """The green context: its stream is valid as long as it lives."""

    def active(self) -> AbstractContextManager[Any]:
        """Make the lane's stream current in this thread."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)


@dataclass(frozen=True, slots=True)
class Lanes:
    """All lanes of a device, the smallest first; the last is the whole device."""

    lanes: tuple[Lane, ...]
    reason: str | None
    """Why there are no partitions; None when there are."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """SMs of each lane; empty on a CPU."""
        return tuple(lane.num_sms for lane in self.lanes if lane.stream is not None)

    @property
    def whole(self) -> Lane:
        return self.lanes[-1]

    def of_size(self, num_sms: int) -> Lane:
        """The largest lane of at most ``num_sms``, or the smallest."""
        fitting = [lane for lane in self.lanes if lane.num_sms <= num_sms]
        return fitting[-1] if fitting else self.lanes[0]


def lane_sizes(num_sms: int, shares: Sequence[float] = PARTITION_SHARES) -> tuple[int, ...]:
    """Partition sizes of a GPU, ascending, without the whole."""
    sizes = {int(num_sms * share) // _SM_GRANULE * _SM_GRANULE for share in shares}
    return tuple(sorted(size for size in sizes if 0 < size < num_sms))


def open_lanes(device: torch.device, shares: Sequence[float] = PARTITION_SHARES) -> Lanes:
    """Make the lanes of a device: partitions of these shares, and the whole."""
    if device.type != "cuda":
        return Lanes((Lane(0, None),), "not a CUDA device")
    device = torch.device("cuda", device.index or 0)
    torch.cuda.set_device(device)
    torch.cuda.synchronize()  # makes the primary context current in this thread, which green contexts build on
    num_sms = torch.cuda.get_device_properties(device).multi_processor_count
    whole = Lane(num_sms, torch.cuda.Stream(device))
    partitions, reason = _partitions(lane_sizes(num_sms, shares), device, _create_green_context)
    return Lanes((*partitions, whole), reason)


def _partitions(
    sizes: Sequence[int], device: torch.device, create: Callable[[int, torch.device], Any]
) -> tuple[tuple[Lane, ...], str | None]:
    try:
        contexts = [(size, create(size, device)) for size in sizes]
        return tuple(Lane(size, context.Stream(), context) for size, context in contexts), None
    except (ImportError, AttributeError, RuntimeError) as error:
        return (), f"no green contexts: {error}"


def _create_green_context(num_sms: int, device: torch.device) -> Any:
    from torch.cuda.green_contexts import GreenContext

    return GreenContext.create(num_sms=num_sms, device_id=device.index or 0)
