"""A preference pair: two replies to one brief, of which people preferred one. What reward models learn from."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from agent.brief import Brief
from agent.dialogue import Role, Turn


class PairSource(StrEnum):
    """What kind of feedback says that one reply is better."""

    EDIT = "edit"
    """Somebody rewrote the reply: the edited text is chosen, the reply rejected."""
    COMPARISON = "comparison"
    """Somebody chose between two replies."""
    RATING = "rating"
    """Two replies to one prompt were rated apart."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One pair. Both replies are text as a reader sees it."""

    id: str
    """A digest of what it was made from: the same feedback makes the same pair."""
    brief: Brief
    chosen: str
    rejected: str
    source: PairSource
    end_user: str | None = None
    """The tenant's id of the person who said so."""
    held_out: bool = False
    """By hash of the prompt: never trained on, and what reward models are compared on."""


class PreferencePairs(Protocol):
    """Where pairs come from."""

    async def pairs(self, language: str) -> list[PreferencePair]:
        """All pairs of a language (ISO 639-1) of all tenants, under the caps on each one's influence, oldest first.

        Raises:
            StoreError: the store could not be reached.
        """
        ...


def conversation(brief: Brief) -> list[Turn]:
    """A brief as a reward model reads it: one user's turn, without the template that the policy is prompted with."""
    parts = [brief.text, brief.instructions] if brief.text else [brief.instructions]
    wish = f"[{brief.kind.value}, {brief.language}]"
    return [Turn(Role.USER, "\n\n".join([wish, *(part.strip() for part in parts if part.strip())]))]
