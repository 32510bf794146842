"""What was asked, what was sampled and what was served: the record that tuning learns from."""

import hashlib
from array import array
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from agent.brief import Brief
from agent.completion import Completion, GenerationTiming
from agent.edits import Edit
from agent.repair import Repair
from agent.verdict import LanguageVerdict


@dataclass(frozen=True, slots=True)
class PromptRef:
    """Which template rendered a prompt: ``version`` names the template set, e.g. ``v1``."""

    version: str
    kind: str
    language: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One request with its completions. What was served is what may be trained on: where sentences were put into the
    served completion (``repair.text``), nothing that was sampled was served, and the prompt alone may be used."""

    id: str
    """The request id that the caller saw."""
    created_at: datetime
    brief: Brief
    prompt: PromptRef
    completions: tuple[Completion, ...]
    served: int
    """Index into ``completions`` of the one that the caller got."""
    verdict: LanguageVerdict
    """On what was served."""
    repair: Repair | None = None
    """What was done about a reply in a wrong language; None when nothing was."""

    def __post_init__(self) -> None:
        if not 0 <= self.served < len(self.completions):
            raise ValueError(f"served must index one of {len(self.completions)} completions, got {self.served}")

    @property
    def served_as_sampled(self) -> bool:
        """True when what was served is a completion, so that the completions may be trained on."""
        return self.repair is None or self.repair.text is None

    @property
    def prompt_token_ids(self) -> tuple[int, ...]:
        """The prompt, which all completions share."""
        return self.completions[self.served].prompt_token_ids

    @property
    def prompt_digest(self) -> str:
        """A hash of the prompt's token ids: what makes two episodes the same prompt, whoever sent them."""
        return hashlib.sha256(array("q", self.prompt_token_ids).tobytes()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Reply:
    """What the caller gets."""

    request_id: str
    text: str
    language: str
    verdict: LanguageVerdict
    policy_version: int
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    """Of all that was sampled, served or not."""
    duration_ms: float
    timing: GenerationTiming | None = None
    """Of the completion that was served; None when the engine did not measure it."""
    edits: tuple[Edit, ...] | None = None
    """What ``correct`` changed in its input; None for other kinds."""
    alternatives: tuple[str, ...] | None = None
    """Further texts that the caller asked for, the better ones first where they were ranked; of ``suggest`` its
    distinct alternatives, perhaps fewer than were asked for. None where one text was all that was asked for."""
    data: JsonValue = None
    """The reply's JSON, when a schema was asked for."""
    repair: Repair | None = None
    """What was done about a reply in a wrong language; None when nothing was."""
