"""A kernel that ends when a signal on the device is lowered: it takes one warp, and reads.

Import it on a CUDA device only.
"""

import triton
import triton.language as tl
from torch import Tensor

_MOST_READS = 65536
"""Of the signal, each a trip to the second-level cache and back: an estimated ten milliseconds on an H100."""


def wait_until_lowered(signal: Tensor, most_reads: int = _MOST_READS) -> None:
    """Hold the current stream up until no step is in ``signal`` (trainer.yielding), or it has been read often.

    Who gives up leaves the step's number there, so that whoever comes later does not wait for the same step.
    """
    _wait[(1,)](signal, most_reads, num_warps=1)


@triton.jit(do_not_specialize=["most_reads"])
def _wait(signal, most_reads):  # type: ignore[no-untyped-def]
    given_up = tl.load(signal + 1, volatile=True)
    step = tl.load(signal, volatile=True)
    reads = most_reads * 0
    while (reads < most_reads) & (step != 0) & (step != given_up):
        step = tl.load(signal, volatile=True)
        reads += 1
    if reads >= most_reads:
        tl.store(signal + 1, step)
