"""How `GET /admin/requests/{request_id}` shows a request."""

from dataclasses import asdict
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from agent.brief import Brief, Example, Kind, Register
from agent.completion import Completion
from agent.repair import Repair, RepairMethod, RepairOutcome
from agent.texts import other_texts, served_text
from rewards.score import Score, Ungradable
from service.feedback.inspection import Inspection
from service.http.content_reply import LanguageVerdictView
from service.http.feedback_schema import FeedbackView


class BriefView(BaseModel):
    """The brief as it was carried out, with what the tenant's settings had added."""

    tenant: str
    kind: Kind
    language: str
    instructions: str
    text: str
    tone: str | None
    audience: str | None
    keywords: list[str]
    min_words: int | None
    max_words: int | None
    end_user: str | None
    brand_terms: list[str]
    register_: Register | None = Field(alias="register", serialization_alias="register")
    forbidden_terms: list[str]
    examples: list[Example]
    source_language: str | None
    num_alternatives: int | None
    schema_: str | None = Field(alias="schema", serialization_alias="schema", description="JSON Schema, as text.")

    @classmethod
    def of(cls, brief: Brief) -> "BriefView":
        return cls.model_validate(asdict(brief))


class PromptView(BaseModel):
    """Which template rendered the prompt."""

    version: str
    kind: str
    language: str


class CompletionView(BaseModel):
    """One sampled completion."""

    text: str
    served: bool
    finish_reason: str
    num_tokens: int
    first_version: int = Field(description="Policy that sampled its first token.")
    last_version: int = Field(description="Policy that sampled its last token.")

    @classmethod
    def of(cls, completion: Completion, *, served: bool) -> "CompletionView":
        return cls(
            text=completion.text,
            served=served,
            finish_reason=completion.finish_reason.value,
            num_tokens=len(completion.token_ids),
            first_version=completion.versions.first,
            last_version=completion.versions.last,
        )


class PartView(BaseModel):
    """One part of a reward."""

    name: str
    value: float | None = Field(description="In [-1, 1]; null when it does not apply, or the reply cannot be graded.")
    weight: float


class RewardView(BaseModel):
    """The reward of the served text as the panel scores it now."""

    judge: str = Field(description="`name@revision` of who judged.", examples=["panel@1"])
    value: float | None = Field(description="null when it cannot be graded.")
    ungradable: str | None = Field(description="Why it cannot be graded; null when it can.")
    parts: list[PartView] = Field(description="Every part that has a weight here, and every part that has a value.")

    @classmethod
    def of(cls, inspection: Inspection) -> "RewardView":
        score, weights = inspection.score, inspection.weights
        values = score.parts if isinstance(score, Score) else {}
        names = sorted({name for name, weight in weights.items() if weight > 0} | values.keys())
        return cls(
            judge=score.judge,
            value=score.value if isinstance(score, Score) else None,
            ungradable=score.reason if isinstance(score, Ungradable) else None,
            parts=[PartView(name=name, value=values.get(name), weight=weights.get(name, 0.0)) for name in names],
        )


class RepairView(BaseModel):
    """One attempt at a reply in a wrong language."""

    model_config = ConfigDict(from_attributes=True)

    method: RepairMethod
    outcome: RepairOutcome


def _repairs(repair: Repair | None) -> list[RepairView]:
    return [] if repair is None else [RepairView.model_validate(item) for item in repair.attempts]


class RequestView(BaseModel):
    """One request: what was asked, what was answered, what it is worth, what people said."""

    request_id: str
    created_at: datetime
    tenant: str
    language: str
    brief: BriefView
    prompt: PromptView
    text: str = Field(description="What was served.")
    other_texts: list[str] = Field(description="Alternatives, and completions that `best_of` left out.")
    language_verdict: LanguageVerdictView
    repairs: list[RepairView] = Field(description="What was tried about a reply in a wrong language, in order.")
    trainable: bool = Field(description="False when sentences were put into `text`, so that nobody sampled it.")
    policy_version: int = Field(description="The policy that finished the served text.")
    completions: list[CompletionView]
    reward: RewardView
    feedback: list[FeedbackView] = Field(description="Oldest first; at most the 200 newest.")

    @classmethod
    def of(cls, inspection: Inspection) -> "RequestView":
        episode = inspection.episode
        return cls(
            request_id=episode.id,
            created_at=episode.created_at,
            tenant=episode.brief.tenant,
            language=episode.brief.language,
            brief=BriefView.of(episode.brief),
            prompt=PromptView(**asdict(episode.prompt)),
            text=served_text(episode),
            other_texts=list(other_texts(episode)),
            language_verdict=LanguageVerdictView.of(episode.verdict),
            repairs=_repairs(episode.repair),
            trainable=episode.served_as_sampled,
            policy_version=episode.completions[episode.served].versions.last,
            completions=[
                CompletionView.of(completion, served=index == episode.served and episode.served_as_sampled)
                for index, completion in enumerate(episode.completions)
            ],
            reward=RewardView.of(inspection),
            feedback=[FeedbackView.of(piece) for piece in inspection.feedback],
        )
