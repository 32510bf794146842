"""What people say of a reply: the kinds of feedback, and one piece of it with whom and what it is about.

Knows neither where feedback is kept nor what is learnt from it.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

MIN_STARS, MAX_STARS = 1, 5


class FeedbackKind(StrEnum):
    """The kinds."""

    RATING = "rating"
    THUMBS = "thumbs"
    COMPARISON = "comparison"
    EDIT = "edit"
    COMMENT = "comment"
    IMPLICIT = "implicit"


@dataclass(frozen=True, slots=True)
class Rating:
    """Stars. Raises ValueError when there are too few or too many."""

    stars: int
    kind: Literal[FeedbackKind.RATING] = FeedbackKind.RATING

    def __post_init__(self) -> None:
        if not MIN_STARS <= self.stars <= MAX_STARS:
            raise ValueError(f"stars must be between {MIN_STARS} and {MAX_STARS}, got {self.stars}")


@dataclass(frozen=True, slots=True)
class Thumbs:
    """Up or down."""

    up: bool
    kind: Literal[FeedbackKind.THUMBS] = FeedbackKind.THUMBS


@dataclass(frozen=True, slots=True)
class Comparison:
    """Better or worse than another text for the same brief."""

    better: bool
    text: str
    """The other text, as its reader saw it."""
    request_id: str | None = None
    """The request that the other text answered; None when it is one of the same request's."""
    kind: Literal[FeedbackKind.COMPARISON] = FeedbackKind.COMPARISON


@dataclass(frozen=True, slots=True)
class TextEdit:
    """What somebody made of the text."""

    text: str
    published: bool = False
    """Whether it went live, perhaps as it was."""
    kind: Literal[FeedbackKind.EDIT] = FeedbackKind.EDIT


@dataclass(frozen=True, slots=True)
class Comment:
    """A remark in words."""

    text: str
    kind: Literal[FeedbackKind.COMMENT] = FeedbackKind.COMMENT


class Signal(StrEnum):
    """What became of a text, without a word about it."""

    PUBLISHED = "published"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class Implicit:
    """What became of the text."""

    signal: Signal
    kind: Literal[FeedbackKind.IMPLICIT] = FeedbackKind.IMPLICIT


Opinion = Annotated[Rating | Thumbs | Comparison | TextEdit | Comment | Implicit, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Feedback:
    """One opinion on one reply."""

    tenant: str
    request_id: str
    """The reply's own id: of a call for several languages, `{request_id}-{language}`."""
    language: str
    """The brief's, an ISO 639-1 code."""
    at: datetime
    key_id: str
    """The API key that brought it."""
    opinion: Opinion
    end_user: str | None = None
    """The tenant's own opaque id of the person whose opinion it is."""
    about: str | None = None
    """Which of the reply's texts it is about; None for the one that was served."""

    @property
    def voice(self) -> str:
        """Whose opinion it is. What comes without an end user is one voice for each key: nobody can tell how many
        people stand behind it."""
        return f"key {self.key_id}" if self.end_user is None else f"user {self.end_user}"

    @property
    def slot(self) -> str:
        """A digest of what it speaks to: a later opinion of the same voice in the same slot takes its place."""
        opinion = self.opinion
        said = opinion.text if isinstance(opinion, Comparison | Comment) else None
        return _digest(self.request_id, self.voice, opinion.kind.value, self.about, said)

    @property
    def content(self) -> str:
        """A digest of what it says in its slot: equal for the same feedback, posted again."""
        opinion = self.opinion
        match opinion:
            case Rating():
                return _digest(opinion.stars)
            case Thumbs():
                return _digest(opinion.up)
            case Comparison():
                return _digest(opinion.better)
            case TextEdit():
                return _digest(opinion.text, opinion.published)
            case Implicit():
                return _digest(opinion.signal.value)
            case Comment():
                return _digest()


def _digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
