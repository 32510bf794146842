"""What was asked, what was sampled and what was served: the record that tuning learns from."""

from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from agent.brief import Brief
from agent.completion import Completion, GenerationTiming
from agent.edits import Edit
from agent.verdict import LanguageVerdict


@dataclass(frozen=True, slots=True)
class PromptRef:
    """Which template rendered a prompt: ``version`` names the template set, e.g. ``v1``."""

    version: str
    kind: str
    language: str


@dataclass(frozen=True, slots=True)
class Episode:
    """One request with its completions. What was served is what may be trained on."""

    id: str
    """The request id that the caller saw."""
    created_at: datetime
    brief: Brief
    prompt: PromptRef
    completions: tuple[Completion, ...]
    served: int
    """Index into ``completions`` of the one that the caller got."""
    verdict: LanguageVerdict

    def __post_init__(self) -> None:
        if not 0 <= self.served < len(self.completions):
            raise ValueError(f"served must index one of {len(self.completions)} completions, got {self.served}")


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
    duration_ms: float
    timing: GenerationTiming | None = None
    """Of the completion that was served; None when the engine did not measure it."""
    edits: tuple[Edit, ...] | None = None
    """What ``correct`` changed in its input; None for other kinds."""
    alternatives: tuple[str, ...] | None = None
    """The distinct alternatives of ``suggest``, perhaps fewer than were asked for; None for other kinds."""
    data: JsonValue = None
    """The reply's JSON, when a schema was asked for."""
