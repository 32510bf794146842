"""Device memory that CUDA graphs use by turns.

    graph of lane 0   ├── its tensors ──────┤
    graph of lane 1   ├── its tensors ────┤            the same addresses: one graph runs at a time
    graph of lane 2   ├── its tensors ──────┤

torch never gives a block of one stream to another, so that graphs captured on several lanes would each hold the
activations once. Here every graph is captured into a memory pool of its own whose segments are laid over those of the
graphs before it. Valid as long as graphs that share an arena never run at the same time, and read nothing in it that
they have not written: what a capture leaves alive is kept out of the others' way.
"""

import ctypes
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch

CHUNK_BYTES = 256 * 2**20
"""Smallest piece that is asked of the driver; a larger segment gets a piece of its own."""
_GRANULE = 2**21
"""Segments begin at multiples of this, as the driver's own allocations do."""
_RELAXED = 2
"""CU_STREAM_CAPTURE_MODE_RELAXED: this thread may allocate while it captures."""
_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p)

Obtain = Callable[[int], int | None]
"""Address of so many new bytes; None when there are none left."""


@dataclass(slots=True)
class Layout:
    """Where segments lie: first fit in pieces that are obtained as they are needed."""

    obtain: Obtain
    _pieces: list[tuple[int, int]] = field(default_factory=list)
    """(address, bytes), in the order in which they were obtained."""
    _free: list[tuple[int, int]] = field(default_factory=list)
    _taken: dict[int, int] = field(default_factory=dict)
    """Segments of this turn: address to bytes."""
    _kept: dict[int, int] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Of all pieces."""
        return sum(size for _, size in self._pieces)

    @property
    def addresses(self) -> list[int]:
        """Of the pieces."""
        return [address for address, _ in self._pieces]

    def take(self, num_bytes: int) -> int | None:
        """Address of a segment; None when the device has no more memory."""
        size = -(-num_bytes // _GRANULE) * _GRANULE
        if not any(room >= size for _, room in self._free) and not self._grow(size):
            return None
        place = next(index for index, (_, room) in enumerate(self._free) if room >= size)
        address, room = self._free[place]
        self._free[place] = (address + size, room - size)
        self._taken[address] = size
        return address

    def rewind(self, keep: Collection[int] = ()) -> None:
        """Begin another turn at the first address. Segments of the last one at the addresses ``keep`` stay taken."""
        self._kept |= {address: self._taken[address] for address in keep}
        self._taken = {}
        self._free = [gap for piece in self._pieces for gap in self._gaps(*piece)]

    def _grow(self, size: int) -> bool:
        size = max(size, CHUNK_BYTES)
        address = self.obtain(size)
        if address is None:
            return False
        self._pieces.append((address, size))
        self._free.append((address, size))
        return True

    def _gaps(self, begin: int, size: int) -> list[tuple[int, int]]:
        """What the kept segments leave of a piece."""
        kept = sorted(item for item in self._kept.items() if begin <= item[0] < begin + size)
        edges = [(begin, 0), *kept, (begin + size, 0)]
        ends = [address + taken for address, taken in edges[:-1]]
        begins = [address for address, _ in edges[1:]]
        return [(end, following - end) for end, following in zip(ends, begins, strict=True) if following > end]


class Arena:
    """A device's memory for graphs. Allocates only while a graph is captured; one thread may capture at a time."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._layout = Layout(self._obtain)
        # torch keeps no reference to these.
        self._allocate = _ALLOCATE(lambda size, device, stream: self._layout.take(size) or 0)
        self._free = _FREE(lambda *_: None)

    @property
    def size_bytes(self) -> int:
        return self._layout.size_bytes

    def pool(self) -> Any:
        """A fresh memory pool for one capture, laid over those before it. Call ``settle`` when the capture is done."""
        allocator = torch._C._cuda_customAllocator(
            ctypes.cast(self._allocate, ctypes.c_void_p).value or 0, ctypes.cast(self._free, ctypes.c_void_p).value or 0
        )
        return torch.cuda.MemPool(allocator)

    def settle(self, pool: Any) -> None:
        """End a capture's turn: its memory is the next one's too, but for segments in which something is alive."""
        segments = torch.cuda.memory_snapshot(pool.id)
        self._layout.rewind([segment["address"] for segment in segments if segment["active_size"]])

    def release(self) -> None:
        """Give the memory back. No graph of this arena may be run again."""
        for address in self._layout.addresses:
            self._driver.cuMemFree_v2(ctypes.c_uint64(address))
        self._layout = Layout(self._obtain)

    def _obtain(self, size: int) -> int | None:
        address, mode = ctypes.c_uint64(), ctypes.c_int(_RELAXED)
        self._driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
        try:
            failed = self._driver.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(size))
        finally:
            self._driver.cuThreadExchangeStreamCaptureMode(ctypes.byref(mode))
        return None if failed else address.value
