"""What `POST /v1/content` answers: the text, its language verdict, and what belongs to its kind."""

from collections.abc import Sequence

from pydantic import BaseModel, Field, JsonValue

from agent.edits import Edit, Reason
from agent.episode import Reply
from agent.verdict import LanguageVerdict, Verdict


class SentenceView(BaseModel):
    """The language verdict on one sentence, `text[start:end]` in Unicode code points."""

    start: int
    end: int
    verdict: Verdict
    language: str | None = Field(description="Detected ISO 639-1 code; null when undetermined.")
    confidence: float = Field(description="The detector's probability of `language`, in [0, 1].")


class LanguageVerdictView(BaseModel):
    """Whether the reply is in the wanted language."""

    wanted: str
    verdict: Verdict
    share: float | None = Field(description="Share of determined characters in the wanted language; null when none.")
    sentences: list[SentenceView]

    @classmethod
    def of(cls, verdict: LanguageVerdict) -> "LanguageVerdictView":
        return cls.model_validate(verdict, from_attributes=True)


class Usage(BaseModel):
    """Tokens of the request."""

    prompt_tokens: int
    completion_tokens: int = Field(description="Of all that was sampled: also of replies that `best_of` left out.")
    total_tokens: int


class Timing(BaseModel):
    """How long it took inside the node."""

    duration_ms: float = Field(description="From reading the request to the finished reply.")
    first_token_ms: float | None = Field(
        default=None, description="From handing the prompt to the engine to the first token; null when not measured."
    )
    inter_token_ms: float | None = Field(
        default=None, description="Mean time between two tokens; null for a single token, or when not measured."
    )

    @classmethod
    def of(cls, reply: Reply) -> "Timing":
        measured = reply.timing
        return cls(
            duration_ms=round(reply.duration_ms, 1),
            first_token_ms=_milliseconds(measured.first_token_s) if measured is not None else None,
            inter_token_ms=_milliseconds(measured.inter_token_s) if measured is not None else None,
        )


class EditView(BaseModel):
    """One change of a correction: `text[start:end]` of the request becomes `replacement`."""

    start: int = Field(description="First Unicode code point of `text` that is replaced.")
    end: int = Field(description="First one after it; as large as `start` where something is put in.")
    replacement: str
    reason: Reason = Field(description="The kind of the change, by rule from its letters.")


class ContentReply(BaseModel):
    """What was written, by which policy, and whether it is in the wanted language."""

    request_id: str = Field(examples=["req_0u2Cq4lJm3Tn9bX7aVd5Ew"])
    text: str = Field(examples=["Unsere neue Fahrradklingel ist da."])
    language: str = Field(description="The language that was asked for.", examples=["de"])
    language_verdict: LanguageVerdictView
    policy_version: int = Field(description="The policy that wrote it; 0 is the untuned model.", examples=[3])
    finish_reason: str = Field(description="`stop`, or `length` when `max_tokens` cut it off.", examples=["stop"])
    usage: Usage
    timing: Timing
    edits: list[EditView] | None = Field(
        default=None,
        description="What `correct` changed, in order; null for other kinds. Applied to the request's `text` they give "
        "the reply, white space at both ends aside.",
    )
    alternatives: list[str] | None = Field(
        default=None,
        description="Further texts, where `n` is more than 1, the better ones first with `best_of`; the distinct "
        "alternatives of `suggest`; else null.",
        examples=[["Sie ist da: unsere neue Fahrradklingel."]],
    )
    data: JsonValue = Field(default=None, description="The reply's JSON when a `schema` was asked for; else null.")

    @classmethod
    def of(cls, reply: Reply) -> "ContentReply":
        return cls(
            request_id=reply.request_id,
            text=reply.text,
            language=reply.language,
            language_verdict=LanguageVerdictView.of(reply.verdict),
            policy_version=reply.policy_version,
            finish_reason=reply.finish_reason,
            usage=Usage(
                prompt_tokens=reply.prompt_tokens,
                completion_tokens=reply.completion_tokens,
                total_tokens=reply.prompt_tokens + reply.completion_tokens,
            ),
            timing=Timing.of(reply),
            edits=_edits(reply.edits),
            alternatives=list(reply.alternatives) if reply.alternatives is not None else None,
            data=reply.data,
        )


class ContentReplies(BaseModel):
    """One result for each language that was asked for."""

    request_id: str = Field(description="The request's id; each result has one of its own.")
    results: list[ContentReply]
    usage: Usage = Field(description="Tokens of all results.")

    @classmethod
    def of(cls, request_id: str, replies: Sequence[Reply]) -> "ContentReplies":
        prompt = sum(reply.prompt_tokens for reply in replies)
        completion = sum(reply.completion_tokens for reply in replies)
        return cls(
            request_id=request_id,
            results=[ContentReply.of(reply) for reply in replies],
            usage=Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion),
        )


def _edits(edits: Sequence[Edit] | None) -> list[EditView] | None:
    return None if edits is None else [EditView.model_validate(edit, from_attributes=True) for edit in edits]


def _milliseconds(duration_s: float | None) -> float | None:
    return None if duration_s is None else round(duration_s * 1000, 3)
