"""A content brief: what is wanted, in which language, within which constraints. Validated once, at the edge."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from agent.allowance import NOTHING, Allowance
from agent.errors import InvalidBrief

Register = Literal["formal", "informal"]


class Kind(StrEnum):
    """What kind of content work a brief asks for."""

    CREATE = "create"
    """Write new content from instructions."""
    CORRECT = "correct"
    """Correct ``text``: spelling, grammar, punctuation; nothing else."""
    SUGGEST = "suggest"
    """Suggest improvements or alternatives for ``text``, or ideas for ``instructions``."""
    TRANSLATE = "translate"
    """Translate ``text`` into the brief's language."""
    REWRITE = "rewrite"
    """Say ``text`` in other words, as ``instructions`` and the constraints ask."""
    CHAT = "chat"
    """Go on with a conversation: ``instructions`` is its last message, ``text`` what came before. Has no template."""


@dataclass(frozen=True, slots=True)
class Example:
    """What is wanted, shown by one case."""

    wanted: str
    given: str = ""
    """What it was made from; empty when only the result matters."""


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
    """The text to work on; required for ``correct``, ``translate`` and ``rewrite``."""
    tone: str | None = None
    audience: str | None = None
    keywords: tuple[str, ...] = ()
    min_words: int | None = None
    max_words: int | None = None
    end_user: str | None = None
    """The tenant's own opaque id of the person behind the request."""
    brand_terms: tuple[str, ...] = field(default=())
    """Names that may stand in any language; the language contract ignores them."""
    register: Register | None = None
    """How readers are addressed; goes before the tenant's own setting."""
    forbidden_terms: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    source_language: str | None = None
    """Language of ``text``, for ``translate``; None leaves it to the model."""
    num_alternatives: int | None = None
    """How many distinct alternatives ``suggest`` should give."""
    schema: str | None = None
    """JSON Schema that the reply must fit, as agent.structure.read_schema returns it."""
    glossary: tuple[tuple[str, str], ...] = ()
    """Terms of the request, each with what it is to be called in ``language``."""
    allowance: Allowance = NOTHING
    """What of the reply may be in other languages."""

    def __post_init__(self) -> None:
        if self.kind is Kind.CREATE and not self.instructions.strip():
            raise InvalidBrief("instructions", "kind 'create' needs instructions, got an empty text")
        if self.kind is Kind.CORRECT and not self.text.strip():
            raise InvalidBrief("text", "kind 'correct' needs the text to correct, got an empty text")
        if self.kind in (Kind.TRANSLATE, Kind.REWRITE) and not self.text.strip():
            raise InvalidBrief("text", f"kind '{self.kind}' needs the text to {self.kind}, got an empty text")
        if self.schema is not None and self.kind in (Kind.CORRECT, Kind.SUGGEST):
            raise InvalidBrief("schema", f"kind '{self.kind}' has a form of its own and takes no schema")
        if self.kind is Kind.SUGGEST and not (self.text.strip() or self.instructions.strip()):
            raise InvalidBrief("instructions", "kind 'suggest' needs instructions or a text, got neither")
        if self.min_words is not None and self.max_words is not None and self.min_words > self.max_words:
            raise InvalidBrief("min_words", f"must not exceed max_words, got {self.min_words} > {self.max_words}")
