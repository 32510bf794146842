"""How a comparison fails."""

from service.bench.failure import BenchFailed


class PeerFailed(BenchFailed):
    """A peer did not start, did not end or gave no result; the message has the end of what it printed."""
