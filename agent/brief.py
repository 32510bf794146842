"""A content brief: what is wanted, in which language, within which constraints. Validated once, at the edge."""

from dataclasses import dataclass, field
from enum import StrEnum

from agent.errors import InvalidBrief


class Kind(StrEnum):
    """What kind of content work a brief asks for."""

    CREATE = "create"
    """Write new content from instructions."""
    CORRECT = "correct"
    """Correct ``text``: spelling, grammar, punctuation; nothing else."""
    SUGGEST = "suggest"
    """Suggest improvements or alternatives for ``text``, or ideas for ``instructions``."""


@dataclass(frozen=True, slots=True)
class Brief:
    """One content request of one tenant, already validated.

    Raises:
        InvalidBrief: when the kind's required input is missing or a bound is out of order.
    """

    tenant: str
    kind: Kind
    language: str
    """ISO 639-1 code of the language that the reply must be in."""
    instructions: str = ""
    """What to write or how; required for ``create``."""
    text: str = ""
    """The text to work on; required for ``correct``."""
    tone: str | None = None
    audience: str | None = None
    keywords: tuple[str, ...] = ()
    min_words: int | None = None
    max_words: int | None = None
    end_user: str | None = None
    """The tenant's own opaque id of the person behind the request."""
    brand_terms: tuple[str, ...] = field(default=())
    """Names that may stand in any language; the language contract ignores them."""

    def __post_init__(self) -> None:
        if self.kind is Kind.CREATE and not self.instructions.strip():
            raise InvalidBrief("instructions", "kind 'create' needs instructions, got an empty text")
        if self.kind is Kind.CORRECT and not self.text.strip():
            raise InvalidBrief("text", "kind 'correct' needs the text to correct, got an empty text")
        if self.kind is Kind.SUGGEST and not (self.text.strip() or self.instructions.strip()):
            raise InvalidBrief("instructions", "kind 'suggest' needs instructions or a text, got neither")
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise InvalidBrief("min_words", f"must not exceed max_words, got {self.min_words} > {self.max_words}")
