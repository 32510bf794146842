"""What a content agent is asked for: a brief, and how it is to be carried out."""

from dataclasses import dataclass

from agent.alternatives import ONE, Alternatives
from agent.brief import Brief
from agent.completion import Sampling
from agent.ports import Listener


@dataclass(frozen=True, slots=True)
class Commission:
    """One brief to answer."""

    brief: Brief
    sampling: Sampling
    request_id: str
    alternatives: Alternatives = ONE
    listener: Listener | None = None
    """Hears the first completion as it is sampled; what counts is the reply."""
    wait_s: float | None = None
    """How long the caller waits; a repair ends by then. None sets no such bound."""
