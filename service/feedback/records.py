"""Feedback as a caller hands it in, and what became of it. Knows neither HTTP nor the store."""

from collections.abc import Sequence
from dataclasses import dataclass

from agent.feedback import FeedbackKind, Opinion


@dataclass(frozen=True, slots=True)
class ReplyRef:
    """Which reply is meant. Exactly one of the first two is set."""

    request_id: str | None = None
    key_name: str | None = None
    """Name of the idempotency key that the call came with."""
    language: str | None = None
    """Which reply of a call for several languages."""


@dataclass(frozen=True, slots=True)
class ComparisonOrder:
    """Better or worse than the reply to another request, or than another text of the same one."""

    better: bool
    request_id: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class FeedbackOrder:
    """What one call brings for one reply."""

    reply: ReplyRef
    opinions: Sequence[Opinion]
    """All kinds but comparisons."""
    comparison: ComparisonOrder | None = None
    end_user: str | None = None
    about: str | None = None
    """Which of the reply's texts, word for word; None for the one that was served."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was kept of a call."""

    request_id: str
    """The reply's own id."""
    language: str
    kinds: tuple[tuple[FeedbackKind, bool], ...]
    """Each kind that came; False for a repetition of what is kept already."""
