"""Configuration that this package owns: tenants, their languages and prompts' limits."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen part of the node's configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


Term = Annotated[str, Field(min_length=1, max_length=200)]
"""A word or a few."""


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
    reward_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Overrides of `rewards.weights` for this tenant and language."""


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
    idempotency: Literal["header", "body"] = "header"
    """How a repeated call is recognised: by its `Idempotency-Key`, or, where there is none, by its body."""
    limits: LimitSettings = UNLIMITED
    """What the whole tenant may use; a key may have limits of its own beside these."""
    weight: Annotated[float, Field(ge=0.01, le=100)] = 1.0
    """Share of a busy engine, relative to the other tenants'."""
    max_queued: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests that may wait for a busy engine; one more is refused with 429."""


class AgentConfig(Section):
    """Section `[agent]`."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Default sampling temperature of replies."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Default and highest number of tokens of a reply."""
    hold_s: Annotated[float, Field(gt=0, le=300)] = 25.0
    """How long a call is held before it becomes a job and is answered with 202."""
