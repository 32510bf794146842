"""A kernel that ends when a signal on the device is lowered: it takes one warp, and reads.

Import it on a CUDA device only.
"""

import triton
import triton.language as tl
from torch import Tensor

_MOST_READS = 16384
"""Of the signal, each a trip to the second-level cache and back: some ten milliseconds. Training goes on, slowly, where
steps follow one another without a gap, or where one was never ended."""


def wait_until_lowered(signal: Tensor, most_reads: int = _MOST_READS) -> None:
    """Hold the current stream up until ``signal``, int32, is 0 or has been read ``most_reads`` times."""
    _wait[(1,)](signal, most_reads, num_warps=1)


@triton.jit(do_not_specialize=["most_reads"])
def _wait(signal, most_reads):  # type: ignore[no-untyped-def]
    reads = most_reads * 0
    while (reads < most_reads) & (tl.load(signal, volatile=True) != 0):
        reads += 1
