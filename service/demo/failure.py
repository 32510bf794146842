"""How the demo fails."""

from agent.errors import ColoqError


class DemoFailed(ColoqError):
    """A stage did not show what it has to show; the message says what was expected and what came."""
