"""The ladder of padded lengths: few shapes occur, and for each one a CUDA graph may be kept."""

_SHORTEST_BUCKET = 32
_BUCKETS_PER_OCTAVE = 4


def bucket_length(length: int) -> int:
    """The smallest ladder step of at least ``length``: multiples of 32 up to 128, then four steps to an octave."""
    octave: int = 2 ** max(length - 1, 1).bit_length() // 2
    step = max(_SHORTEST_BUCKET, octave // _BUCKETS_PER_OCTAVE)
    return -(-length // step) * step


def rows_of(length: int, *, tokens: int) -> int:
    """Sequences of a micro-batch of this padded length that stays within ``tokens`` positions; one at the least."""
    return max(1, tokens // length)
