"""The tenants' routes: content, and who am I."""

import json
from typing import Annotated

from fastapi import APIRouter, Depends, Response, Security
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from agent.alternatives import MAX_SAMPLES, Alternatives
from agent.brief import Brief, Kind
from agent.completion import Sampling
from agent.config import AgentConfig, LimitSettings, TenantSettings
from agent.episode import Reply
from agent.errors import InvalidBrief
from agent.verdict import LanguageVerdict, Verdict
from service.http.guard import TENANT_KEY, TenantRoute, needs
from service.http.hold import CALL_HEADERS, HELD_RESPONSES, answer, call_of
from service.http.openapi import problems
from service.http.state import AppParts, get_caller, get_parts, get_tenant, request_id_of
from service.jobs.records import Order
from service.tenancy.caller import Caller
from service.tenancy.record import Scope

CONTENT_ROUTE = "/v1/content"
MAX_INSTRUCTIONS_CHARS = 20_000
MAX_TEXT_CHARS = 100_000

router = APIRouter(
    prefix="/v1",
    tags=["content"],
    route_class=TenantRoute,
    dependencies=[Security(TENANT_KEY)],
    responses=problems(401, 403),
)

Keyword = Annotated[str, Field(min_length=1, max_length=100)]


class ContentRequest(BaseModel):
    """What to write. A field that is null counts as not given."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {
                    "kind": "create",
                    "language": "de",
                    "instructions": "Announce our new bicycle bell in three sentences.",
                    "tone": "friendly",
                    "keywords": ["bell", "safety"],
                    "max_words": 60,
                },
                {"kind": "correct", "language": "en", "text": "Their going too the market."},
            ]
        },
    )

    kind: Kind = Field(
        description="`create` writes from `instructions`, `correct` mends `text`, `suggest` proposes alternatives.",
        examples=["create"],
    )
    language: str = Field(
        min_length=2,
        max_length=35,
        description="ISO 639-1 code of the reply's language; one of the tenant's languages (`GET /v1/me`).",
        examples=["de"],
    )
    instructions: str | None = Field(
        default=None,
        max_length=MAX_INSTRUCTIONS_CHARS,
        description="What to write, or how. Required for `create`.",
        examples=["Announce our new bicycle bell in three sentences."],
    )
    text: str | None = Field(
        default=None,
        max_length=MAX_TEXT_CHARS,
        description="The text to work on. Required for `correct`.",
        examples=["Their going too the market."],
    )
    tone: str | None = Field(default=None, max_length=200, description="How it should sound.", examples=["friendly"])
    audience: str | None = Field(default=None, max_length=200, description="Who reads it.", examples=["commuters"])
    keywords: list[Keyword] | None = Field(
        default=None, max_length=32, description="Words that the reply should use.", examples=[["bell", "safety"]]
    )
    min_words: int | None = Field(default=None, ge=1, le=10_000, description="Fewest words.", examples=[20])
    max_words: int | None = Field(default=None, ge=1, le=10_000, description="Most words.", examples=[60])
    end_user: str | None = Field(
        default=None,
        max_length=128,
        description="Your own opaque id of the person behind the request; no name or address.",
        examples=["user-4711"],
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Longest reply in tokens; the node's own limit (`GET /v1/me`) is the default and the maximum.",
        examples=[128],
    )
    temperature: float | None = Field(
        default=None, ge=0, le=2, description="Sampling temperature; 0 is greedy.", examples=[0.7]
    )
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Nucleus sampling; 1, the default, keeps every token.", examples=[1.0]
    )
    seed: int | None = Field(
        default=None, ge=0, le=2**32 - 1, description="Repeats a reply of the same policy.", examples=[7]
    )
    n: int | None = Field(
        default=None,
        ge=1,
        le=MAX_SAMPLES,
        description="Number of texts: the reply's `text` and `n` - 1 `alternatives`. At most `best_of`.",
        examples=[1],
    )
    best_of: int | None = Field(
        default=None,
        ge=2,
        le=MAX_SAMPLES,
        description="Samples so many replies, ranks them by the tenant's rewards, and serves the best.",
        examples=[4],
    )
    callback_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Public https URL that gets a signed `job.completed` or `job.failed` event once the reply is there,"
        " also when it came in time.",
        examples=["https://hooks.example.com/coloq"],
    )

    def brief(self, tenant: TenantSettings) -> Brief:
        """The brief of this request.

        Raises:
            InvalidBrief: the tenant does not have the language, or the brief's own rules are broken.
        """
        language = self.language.strip().lower()
        settings = tenant.languages.get(language)
        if settings is None:
            enabled = ", ".join(sorted(tenant.languages))
            raise InvalidBrief("language", f"must be one of this tenant's languages ({enabled}), got '{self.language}'")
        return Brief(
            tenant=tenant.id,
            kind=self.kind,
            language=language,
            instructions=self.instructions or "",
            text=self.text or "",
            tone=self.tone or None,
            audience=self.audience or None,
            keywords=tuple(self.keywords or ()),
            min_words=self.min_words,
            max_words=self.max_words,
            end_user=self.end_user or None,
            brand_terms=settings.brand_terms,
        )

    def sampling(self, defaults: AgentConfig) -> Sampling:
        """The sampling parameters, with the node's defaults.

        Raises:
            InvalidBrief: `max_tokens` is above the node's limit.
        """
        max_tokens = self.max_tokens if self.max_tokens is not None else defaults.max_tokens
        if max_tokens > defaults.max_tokens:
            raise InvalidBrief("max_tokens", f"must be between 1 and {defaults.max_tokens}, got {max_tokens}")
        return Sampling(
            max_tokens=max_tokens,
            temperature=self.temperature if self.temperature is not None else defaults.temperature,
            top_p=self.top_p if self.top_p is not None else 1.0,
            seed=self.seed,
        )

    def alternatives(self, sampling: Sampling) -> Alternatives:
        """How many replies are sampled and served.

        Raises:
            InvalidBrief: `n` exceeds `best_of`, or several replies are wanted at temperature 0.
        """
        alternatives = Alternatives(self.n if self.n is not None else 1, self.best_of)
        alternatives.check(sampling)
        return alternatives


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


class ContentReply(BaseModel):
    """What was written, by which policy, and whether it is in the wanted language."""

    request_id: str = Field(examples=["req_0u2Cq4lJm3Tn9bX7aVd5Ew"])
    text: str = Field(examples=["Unsere neue Fahrradklingel ist da."])
    alternatives: list[str] | None = Field(
        default=None,
        exclude_if=lambda texts: texts is None,
        description="Further texts, where `n` is more than 1; the better ones first with `best_of`.",
        examples=[["Sie ist da: unsere neue Fahrradklingel."]],
    )
    language: str = Field(description="The language that was asked for.", examples=["de"])
    language_verdict: LanguageVerdictView
    policy_version: int = Field(description="The policy that wrote it; 0 is the untuned model.", examples=[3])
    finish_reason: str = Field(description="`stop`, or `length` when `max_tokens` cut it off.", examples=["stop"])
    usage: Usage
    timing: Timing

    @classmethod
    def of(cls, reply: Reply) -> "ContentReply":
        return cls(
            request_id=reply.request_id,
            text=reply.text,
            alternatives=list(reply.alternatives) or None,
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
        )


def _milliseconds(duration_s: float | None) -> float | None:
    return None if duration_s is None else round(duration_s * 1000, 3)


class Limits(BaseModel):
    """What one request may ask for."""

    max_tokens: int = Field(description="Longest reply, in tokens.")
    max_body_bytes: int = Field(description="Largest request body.")
    hold_s: float = Field(description="How long a call is held before it becomes a job, in seconds.")


class Me(BaseModel):
    """The tenant that holds the key."""

    tenant: str = Field(examples=["acme"])
    languages: list[str] = Field(description="ISO 639-1 codes that may be asked for.", examples=[["de", "en"]])
    scopes: list[Scope] = Field(description="What this key may do.", examples=[["generate", "read"]])
    limits: Limits
    rates: LimitSettings = Field(description="Limits of the tenant; what is null is not limited.")
    key_rates: LimitSettings = Field(description="Limits of this key, beside the tenant's.")


REPLY_HEADERS = {
    "X-Request-Id": {"description": "The request's id.", "schema": {"type": "string"}},
    "X-Policy-Version": {"description": "The policy that wrote the reply.", "schema": {"type": "integer"}},
    "X-Language-Verdict": {
        "description": "The reply's language verdict.",
        "schema": {"type": "string", "enum": [verdict.value for verdict in Verdict]},
    },
}


@router.post(
    "/content",
    summary="Write, correct or suggest content",
    response_model=ContentReply,
    responses={200: {"headers": REPLY_HEADERS}, **HELD_RESPONSES, **problems(400, 409, 413, 415, 422, 500, 503, 504)},
    openapi_extra={"parameters": CALL_HEADERS},
)
async def create_content(
    body: ContentRequest,
    request: Request,
    tenant: Annotated[TenantSettings, Depends(get_tenant)],
    parts: Annotated[AppParts, Depends(get_parts)],
) -> Response:
    """One brief in, one reply out. The call is held until the reply is ready, at most `hold_s` seconds; then it becomes
    a job and the answer is 202. Hanging up cancels the generation, unless the call has an `Idempotency-Key` or a
    `callback_url`."""
    body.brief(tenant)
    body.alternatives(body.sampling(parts.config.agent))
    callback_url = body.callback_url
    if callback_url is not None:
        callback_url = await parts.node.webhooks.deliveries.check_callback(tenant.id, callback_url)
    canonical = body.model_dump(mode="json", exclude_none=True)
    order = Order(tenant.id, CONTENT_ROUTE, json.dumps(canonical), request_id_of(request), callback_url)
    return await answer(request, call_of(request, tenant, order, canonical, parts.config))


@router.get("/me", summary="Who holds this key, and what it may ask for", openapi_extra=needs(None))
async def get_me(
    caller: Annotated[Caller, Depends(get_caller)],
    parts: Annotated[AppParts, Depends(get_parts)],
) -> Me:
    """Cheap: no store, no engine. Use it as a connection test."""
    return Me(
        tenant=caller.tenant.id,
        languages=sorted(caller.tenant.languages),
        scopes=[scope for scope in Scope if scope in caller.scopes],
        rates=caller.tenant.limits,
        key_rates=caller.limits,
        limits=Limits(
            max_tokens=parts.config.agent.max_tokens,
            max_body_bytes=parts.config.server.max_body_bytes,
            hold_s=parts.config.agent.hold_s,
        ),
    )
