"""Configuration that this package owns: tenants, their languages and prompts' limits."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.allowance import Allowance
from agent.language import primary_code


class Section(BaseModel):
    """A frozen part of the node's configuration; unknown keys are errors, and so are TOML's ``inf`` and ``nan``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


Term = Annotated[str, Field(min_length=1, max_length=200)]
"""A word or a few."""


LanguageCode = Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
"""ISO 639-1, or a three-letter code where that has none."""


OwnTemplate = Annotated[str, Field(min_length=1, max_length=8000)]
"""A template of a tenant's own; agent.own_template says what it may hold."""


class PromptOverrides(Section):
    """A tenant's own templates; what is unset is the product's."""

    system: OwnTemplate | None = None
    """Instead of the system message, of every kind."""
    create: OwnTemplate | None = None
    """Instead of the template of kind `create`."""
    correct: OwnTemplate | None = None
    """Instead of the template of kind `correct`."""
    suggest: OwnTemplate | None = None
    """Instead of the template of kind `suggest`."""
    translate: OwnTemplate | None = None
    """Instead of the template of kind `translate`."""
    rewrite: OwnTemplate | None = None
    """Instead of the template of kind `rewrite`."""


PRODUCT_PROMPTS = PromptOverrides()


class LanguageSettings(Section):
    """One language of one tenant."""

    address: Literal["formal", "informal"] | None = None
    """How readers are addressed; goes into the prompt."""
    brand_terms: Annotated[tuple[Term, ...], Field(max_length=1000)] = ()
    """Names that may stand in any language; the language check ignores them."""
    banned_terms: Annotated[tuple[Term, ...], Field(max_length=1000)] = ()
    """Words that texts should not use, told to the model; corrections and chats are not told."""
    min_words: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Fewest words of a text whose request states no bound; corrections have none."""
    max_words: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Most words of a text whose request states no bound; corrections have none."""
    glossary: Annotated[dict[Term, Term], Field(max_length=1000)] = Field(default_factory=dict)
    """What terms are to be called in this language; those that a request holds are told to the model."""
    foreign_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of a reply's letters that may be in other languages; the language check lets them pass."""
    foreign_languages: Annotated[tuple[LanguageCode, ...], Field(max_length=32)] = ()
    """ISO 639-1 codes of the languages that `foreign_share` is for; empty for any."""
    prompts: PromptOverrides = PRODUCT_PROMPTS
    """Templates of the tenant's own, by kind."""
    reward_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Overrides of `rewards.weights` for this tenant and language; parts that are not named keep theirs."""
    policy: Annotated[int, Field(ge=0)] | None = None
    """Published version that always answers in this language (0 is the untuned model), before the tenant's `policy`."""

    @property
    def allowance(self) -> Allowance:
        """What may stand in other languages."""
        return Allowance(self.foreign_share, self.foreign_languages)


class LimitSettings(Section):
    """How much may be used. What is unset is not limited."""

    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Requests to `/v1` routes in a minute; `GET /v1/me` is free."""
    tokens_per_minute: Annotated[int, Field(ge=1)] | None = None
    """Prompt and reply tokens in a minute, counted when a reply is done."""
    concurrent_requests: Annotated[int, Field(ge=1)] | None = None
    """Generating requests that may run at one time; a job counts until it is done."""
    requests_per_day: Annotated[int, Field(ge=1)] | None = None
    """Generating requests in a day, which begins at 00:00 UTC."""
    tokens_per_day: Annotated[int, Field(ge=1)] | None = None
    """Prompt and reply tokens in a day, which begins at 00:00 UTC."""


UNLIMITED = LimitSettings()


KeyHash = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class TenantSettings(Section):
    """One tenant."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "acme",
                    "languages": {"de": {"address": "formal", "brand_terms": ["Klingelo"]}, "en": {}},
                    "limits": {"requests_per_minute": 120, "concurrent_requests": 8, "tokens_per_day": 2_000_000},
                    "weight": 2.0,
                }
            ]
        }
    )

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    """Name used in keys, logs and metrics: lower-case letters, digits, `-` and `_`."""
    key_hashes: Annotated[tuple[KeyHash, ...], Field(max_length=100)] = ()
    """Hashes of the tenant's API keys; `coloq key new` prints a key once, with the hash for this list."""
    languages: dict[str, LanguageSettings] = Field(min_length=1)
    """ISO 639-1 codes of the languages this tenant may ask for, each with its settings."""
    fallback_language: LanguageCode | None = None
    """Language of requests that name none, or one that is not among `languages`; unset refuses them."""
    idempotency: Literal["header", "body"] = "header"
    """How a repeated call is recognised: by its `Idempotency-Key`, or, where there is none, by its body."""
    limits: LimitSettings = UNLIMITED
    """What the whole tenant may use; a key may have limits of its own beside these."""
    weight: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Share of a busy engine, relative to the other tenants'."""
    max_queued: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that may wait for a busy engine; one more is refused with 429."""
    policy: Annotated[int, Field(ge=0)] | None = None
    """Published version that always answers this tenant (0 is the untuned model); unset follows what is active."""

    def language_of(self, tag: str) -> str | None:
        """The tenant's code of a language tag: `de` for `de-AT`, where it has no `de-at`. None when it lacks it."""
        code = tag.strip().lower()
        return next((known for known in (code, primary_code(code)) if known in self.languages), None)


class AgentConfig(Section):
    """Section `[agent]`."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Default sampling temperature of replies."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Default and highest number of tokens of a reply."""
    hold_s: Annotated[float, Field(gt=0, le=300)] = 25.0
    """How long a call is held before it becomes a job and is answered with 202."""
    repair: Literal["off", "sentence", "retry", "auto"] = "auto"
    """What is done about a reply in a wrong language: write its wrong sentences again, sample another, or either."""
    repair_budget_s: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Longest time that a repair may take; it also ends when its caller would no longer be held."""
