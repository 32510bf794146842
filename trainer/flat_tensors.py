"""Named tensors that lie one behind the other in a flat one, each made when it is asked for.

An adapter of a 28-layer model has some four hundred matrices. To make, to move and to drop a tensor for each of them is
as many calls of torch, after each of which the learner's thread has to ask the engine's for Python's lock.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class FlatLayout:
    """Where each tensor lies."""

    shapes: Mapping[str, tuple[int, ...]]
    """By name, in the order in which they lie."""
    starts: Mapping[str, int] = field(init=False)
    sizes: list[int] = field(init=False)
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        starts = dict(zip(self.shapes, accumulate(sizes[:-1], initial=0), strict=True))
        for key, value in {"sizes": sizes, "starts": starts, "names": tuple(self.shapes)}.items():
            object.__setattr__(self, key, value)


class FlatTensors(Mapping[str, Tensor]):
    """All tensors of a layout; what is asked for is a view."""

    def __init__(self, flat: Tensor, layout: FlatLayout) -> None:
        """``flat`` is [sum of the sizes]."""
        self.flat, self.layout = flat, layout

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "FlatTensors":
        """Copies of others, unless they lie so already."""
        if isinstance(tensors, FlatTensors):
            return tensors
        layout = FlatLayout({name: tuple(tensor.shape) for name, tensor in tensors.items()})
        return cls(torch.cat([tensor.reshape(-1) for tensor in tensors.values()]), layout)

    def __getitem__(self, name: str) -> Tensor:
        shape = self.layout.shapes[name]
        start = self.layout.starts[name]
        return self.flat[start : start + math.prod(shape)].view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layout.names)

    def __len__(self) -> int:
        return len(self.layout.names)

    def to(self, device: torch.device, dtype: torch.dtype | None = None) -> "FlatTensors":
        """There, in one copy where they are not yet."""
        return FlatTensors(self.flat.to(device, dtype or self.flat.dtype), self.layout)

    def pieces(self) -> tuple[Tensor, ...]:
        """All of them in their order, each flat, in one call."""
        pieces: tuple[Tensor, ...] = self.flat.split(self.layout.sizes)
        return pieces
