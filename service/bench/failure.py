"""How a measurement fails."""

from agent.errors import ColoqError


class BenchFailed(ColoqError):
    """A measurement could not be taken; the message says what was expected and what came."""
