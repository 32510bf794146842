"""What `POST /v1/content` takes: one brief, for one language or several."""

from dataclasses import replace
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from agent.alternatives import MAX_SAMPLES, Alternatives
from agent.brief import Brief, Example, Kind, Register
from agent.completion import Sampling
from agent.config import AgentConfig, TenantSettings
from agent.errors import InvalidBrief
from agent.language import find_language, primary_code
from agent.structure import MAX_SCHEMA_BYTES, MAX_SCHEMA_DEPTH, read_schema
from agent.variables import NAME, fill_in
from service.http.validation import shown_name, without_empty_texts

MAX_INSTRUCTIONS_CHARS = 20_000
MAX_TEXT_CHARS = 100_000
MAX_LANGUAGES = 16
MAX_ALTERNATIVES = 8
DEFAULT_ALTERNATIVES = 3

Keyword = Annotated[str, Field(min_length=1, max_length=100)]
LanguageCode = Annotated[str, Field(min_length=2, max_length=35)]
VariableName = Annotated[str, Field(pattern=rf"^{NAME}$")]
VariableValue = Annotated[str, Field(max_length=2_000)]
ContentKind = Literal[Kind.CREATE, Kind.CORRECT, Kind.SUGGEST, Kind.TRANSLATE, Kind.REWRITE]


class ExampleBody(BaseModel):
    """One case that shows what is wanted."""

    model_config = ConfigDict(extra="forbid")

    wanted: str = Field(
        min_length=1, max_length=2_000, description="What a good reply looks like.", examples=["Ride safe, ring first."]
    )
    given: str | None = Field(
        default=None, max_length=2_000, description="What it was made from.", examples=["A slogan for a bicycle bell."]
    )


class ContentRequest(BaseModel):
    """What to write. A field that is null or an empty text counts as not given."""

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
                {
                    "kind": "suggest",
                    "language": "en",
                    "instructions": "Slogans for a bicycle bell.",
                    "alternatives": 3,
                    "forbidden_terms": ["loud"],
                },
                {"kind": "translate", "languages": ["de", "en"], "text": "Nouvelle sonnette.", "source_language": "fr"},
                {
                    "kind": "rewrite",
                    "language": "en",
                    "text": "The bell is loud.",
                    "instructions": "For {{shop}}, in other words.",
                    "variables": {"shop": "Velo Nord"},
                    "register": "informal",
                    "schema": {
                        "type": "object",
                        "properties": {"title": {"type": "string", "maxLength": 60}, "body": {"type": "string"}},
                        "required": ["title", "body"],
                    },
                },
            ]
        },
    )

    kind: ContentKind = Field(
        description="`create` writes from `instructions`, `correct` mends `text`, `suggest` proposes alternatives, "
        "`translate` brings `text` into the reply's language, `rewrite` says it in other words.",
        examples=["create"],
    )
    language: LanguageCode | None = Field(
        default=None,
        description="ISO 639-1 code of the reply's language; one of the tenant's languages (`GET /v1/me`). Either this "
        "or `languages`. Without it, or with another language, a tenant's `fallback_language` is written, if it has "
        "one; the reply's `language` says which it was.",
        examples=["de"],
    )
    languages: list[LanguageCode] | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_LANGUAGES,
        description="Several languages at once: one result for each, in this order.",
        examples=[["de", "en"]],
    )
    instructions: str | None = Field(
        default=None,
        max_length=MAX_INSTRUCTIONS_CHARS,
        description="What to write, or how. Required for `create`. May hold `{{name}}` for each of `variables`.",
        examples=["Announce our new bicycle bell in three sentences."],
    )
    text: str | None = Field(
        default=None,
        max_length=MAX_TEXT_CHARS,
        description="The text to work on. Required for `correct`, `translate` and `rewrite`.",
        examples=["Their going too the market."],
    )
    tone: str | None = Field(default=None, max_length=200, description="How it should sound.", examples=["friendly"])
    audience: str | None = Field(default=None, max_length=200, description="Who reads it.", examples=["commuters"])
    keywords: list[Keyword] | None = Field(
        default=None, max_length=32, description="Words that the reply should use.", examples=[["bell", "safety"]]
    )
    forbidden_terms: list[Keyword] | None = Field(
        default=None, max_length=32, description="Words that the reply should not use.", examples=[["cheap"]]
    )
    register_: Register | None = Field(
        default=None,
        alias="register",
        description="How readers are addressed; goes before the tenant's own setting.",
        examples=["formal"],
    )
    examples: list[ExampleBody] | None = Field(
        default=None,
        max_length=8,
        description="Cases that show what is wanted.",
        examples=[[{"given": "A slogan for a bicycle bell.", "wanted": "Ride safe, ring first."}]],
    )
    variables: dict[VariableName, VariableValue] | None = Field(
        default=None,
        max_length=32,
        description="Values for `{{name}}` in `instructions`. Each must be used, and each `{{name}}` given; without "
        "variables, braces are plain text.",
        examples=[{"shop": "Velo Nord"}],
    )
    source_language: LanguageCode | None = Field(
        default=None,
        description="Language of `text`, for `translate`; the model finds out without it.",
        examples=["fr"],
    )
    alternatives: int | None = Field(
        default=None,
        ge=1,
        le=MAX_ALTERNATIVES,
        description=f"How many alternatives `suggest` should give, {DEFAULT_ALTERNATIVES} by default. Near duplicates "
        "are left out, so there may be fewer.",
        examples=[3],
    )
    json_schema: dict[str, JsonValue] | None = Field(
        default=None,
        alias="schema",
        description=f"JSON Schema (2020-12) that the reply is decoded to; `data` is then the reply's JSON. At most "
        f"{MAX_SCHEMA_BYTES} bytes and {MAX_SCHEMA_DEPTH} levels; `$ref` inside the schema only. For `create`, "
        "`translate` and `rewrite`.",
        examples=[{"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}],
    )
    stream: bool | None = Field(
        default=None,
        description="Send the text as it comes, as server-sent events: `delta` with `language` and `text`, then `done` "
        "with the whole reply and its verdict, or `error` with a problem.",
        examples=[False],
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
        description="Number of texts: the reply's `text` and `n` - 1 `alternatives`. At most `best_of`. Texts that do "
        "not fit the `schema` are left out, so there may be fewer. Not for `suggest`. A stream tells the first text.",
        examples=[1],
    )
    best_of: int | None = Field(
        default=None,
        ge=2,
        le=MAX_SAMPLES,
        description="Samples so many replies, ranks them by the tenant's rewards, and serves the best. Not for "
        "`suggest`, and not with `stream`.",
        examples=[4],
    )

    callback_url: str | None = Field(
        default=None,
        min_length=1,
        max_length=2048,
        description="Public https URL that gets a signed `job.completed` or `job.failed` event once the reply is there,"
        " also when it came in time. Not with `stream`.",
        examples=["https://hooks.example.com/coloq"],
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_not_given(cls, body: object) -> object:
        return without_empty_texts(body, cls)

    def briefs(self, tenant: TenantSettings) -> list[Brief]:
        """One brief for each language.

        Raises:
            InvalidBrief: the tenant does not have a language, or the brief's own rules are broken.
        """
        codes = self._languages(tenant)
        instructions = self.instructions or ""
        if self.variables is not None:
            instructions = fill_in(instructions, self.variables)
            if len(instructions) > MAX_INSTRUCTIONS_CHARS:
                raise InvalidBrief(
                    "instructions",
                    f"must have at most {MAX_INSTRUCTIONS_CHARS} characters once filled in, got {len(instructions)}",
                )
        first = self._brief(tenant, codes[0], instructions)
        return [first, *(self._in_language(first, tenant, code) for code in codes[1:])]

    def brief(self, tenant: TenantSettings) -> Brief:
        """The brief of a request for one language. Raises InvalidBrief."""
        return self.briefs(tenant)[0]

    def _languages(self, tenant: TenantSettings) -> list[str]:
        """The tenant's codes of what is asked for, or of its fallback where that is one language or none."""
        if self.language is not None and self.languages is not None:
            raise InvalidBrief("languages", "must not stand beside language, got both")
        if self.languages is None:
            return [self._single_language(tenant)]
        codes = [self._known(tenant, "languages", code) for code in self.languages]
        if len(set(codes)) < len(codes):
            raise InvalidBrief("languages", f"must name each language once, got {', '.join(self.languages)}")
        return codes

    def _single_language(self, tenant: TenantSettings) -> str:
        known = tenant.language_of(self.language) if self.language is not None else None
        if known is None and tenant.fallback_language is not None:
            return tenant.fallback_language
        if self.language is None:
            raise InvalidBrief("language", "is required, or languages for several, got neither")
        return known or self._known(tenant, "language", self.language)

    @staticmethod
    def _known(tenant: TenantSettings, field: str, tag: str) -> str:
        code = tenant.language_of(tag)
        if code is None:
            enabled = ", ".join(sorted(tenant.languages))
            raise InvalidBrief(
                field, f"must be one of this tenant's languages ({enabled}), got '{shown_name(tag.strip().lower())}'"
            )
        return code

    def _in_language(self, brief: Brief, tenant: TenantSettings, code: str) -> Brief:
        return replace(brief, language=code, brand_terms=tenant.languages[code].brand_terms)

    def _brief(self, tenant: TenantSettings, code: str, instructions: str) -> Brief:
        return Brief(
            tenant=tenant.id,
            kind=self.kind,
            language=code,
            instructions=instructions,
            text=self.text or "",
            tone=self.tone or None,
            audience=self.audience or None,
            keywords=tuple(self.keywords or ()),
            min_words=self.min_words,
            max_words=self.max_words,
            end_user=self.end_user or None,
            brand_terms=tenant.languages[code].brand_terms,
            register=self.register_,
            forbidden_terms=tuple(self.forbidden_terms or ()),
            examples=tuple(Example(example.wanted, example.given or "") for example in self.examples or ()),
            source_language=self._source_language(),
            num_alternatives=self._num_alternatives(),
            schema=self._schema,
        )

    def _source_language(self) -> str | None:
        if not self.source_language:
            return None
        if self.kind is not Kind.TRANSLATE:
            raise InvalidBrief("source_language", f"is for kind 'translate', got kind '{self.kind}'")
        if find_language(self.source_language) is None:
            raise InvalidBrief(
                "source_language", f"must be an ISO 639-1 code, got '{shown_name(self.source_language)}'"
            )
        return primary_code(self.source_language)

    @cached_property
    def _schema(self) -> str | None:
        """Read once: a schema is checked against JSON Schema's own, which is most of a request's validation."""
        return read_schema(self.json_schema) if self.json_schema is not None else None

    def _num_alternatives(self) -> int | None:
        if self.kind is Kind.SUGGEST:
            return self.alternatives or DEFAULT_ALTERNATIVES
        if self.alternatives is not None:
            raise InvalidBrief("alternatives", f"is for kind 'suggest', got kind '{self.kind}'")
        return None

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
            schema=self._schema,
        )

    def siblings(self, sampling: Sampling) -> Alternatives:
        """How many replies are sampled and served.

        Raises:
            InvalidBrief: `n` exceeds `best_of`, or they do not go with the rest of the request.
        """
        alternatives = Alternatives(self.n if self.n is not None else 1, self.best_of)
        alternatives.check(self.kind, sampling, is_heard=bool(self.stream))
        return alternatives
