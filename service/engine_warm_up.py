"""What a fresh engine samples before anybody asks, so that no caller pays for what happens once.

For a kernel's first launch the driver waits until the GPU is empty (README, "The engine room"). Which kernels a step
launches depends on how many sequences it samples for, and beside training the GPU is empty once a micro-batch has
ended: until then every live request stands still. So each number of sequences is run once: as many as the engine runs
at once, of which each ends a step after the one before.
"""

_MOST_STEPS = 512
"""Some seconds. An engine that runs more sequences at once skips numbers."""


def reply_lengths(num_seqs: int, longest: int) -> list[int]:
    """Tokens of each reply, longest first, since the first to be asked for is the first to begin.

    Args:
        num_seqs: what the engine runs at once.
        longest: reply that fits its context window.
    """
    most = min(longest, num_seqs, _MOST_STEPS)
    return [-(-most * left // num_seqs) for left in range(num_seqs, 0, -1)]
