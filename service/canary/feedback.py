"""What people say of replies, as the comparison counts it: as soon as it was kept, by the policy that wrote the reply.

    feedback kept ─► inbox ─► tick: the reply's episode ─► the side that it counted for

Stars count from 0 to 1, thumbs and published or ignored texts as 1 or 0. Edits, comparisons and comments are no figure,
and feedback on another text than the one that was served is not about what a policy serves.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from agent.episode import Episode
from agent.errors import StoreError
from agent.feedback import MAX_STARS, MIN_STARS, Feedback, Implicit, Rating, Signal, Thumbs
from service.canary.traffic import Traffic

log = structlog.get_logger(__name__)

_MOST = 10_000
"""Pieces that wait for the next look; older ones are then not counted."""


class Episodes(Protocol):
    """The journal, asked for single episodes."""

    async def get_many(self, tenant: str, request_ids: Sequence[str]) -> Mapping[str, Episode]:
        """The tenant's episodes of these ids; those that are not kept are absent. Raises StoreError."""
        ...


class FeedbackInbox:
    """Feedback between the moment that it was kept and the next look."""

    def __init__(self, traffic: Traffic, episodes: Episodes) -> None:
        self._traffic, self._episodes = traffic, episodes
        self._waiting: deque[tuple[Feedback, float]] = deque(maxlen=_MOST)

    def add(self, piece: Feedback) -> None:
        """A piece was kept."""
        value = value_of(piece)
        if value is not None and piece.about is None:
            self._waiting.append((piece, value))

    async def note_due(self) -> None:
        """Count what came. What cannot be looked up now is counted at a later look."""
        waiting, self._waiting = self._waiting, deque(maxlen=_MOST)
        by_tenant: dict[str, list[tuple[Feedback, float]]] = {}
        for piece, value in waiting:
            by_tenant.setdefault(piece.tenant, []).append((piece, value))
        for tenant, pieces in by_tenant.items():
            try:
                episodes = await self._episodes.get_many(tenant, [piece.request_id for piece, _ in pieces])
            except StoreError as error:
                self._waiting.extend(pieces)
                log.warning("canary_feedback_not_read", reason=str(error))
                continue
            for piece, value in pieces:
                if (episode := episodes.get(piece.request_id)) is not None:
                    self._traffic.feedback(episode, piece.voice, value)


def value_of(piece: Feedback) -> float | None:
    """Feedback as a figure in [0, 1]; None when it is none."""
    match piece.opinion:
        case Rating(stars=stars):
            return (stars - MIN_STARS) / (MAX_STARS - MIN_STARS)
        case Thumbs(up=up):
            return float(up)
        case Implicit(signal=signal):
            return float(signal is Signal.PUBLISHED)
    return None
