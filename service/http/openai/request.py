"""What `POST /v1/chat/completions` takes, and the conversation that it asks to go on with.

Fields that would change the answer and that the node does not have are refused by name, never ignored.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from agent.chat import Dialogue
from agent.completion import Sampling
from agent.config import AgentConfig, TenantSettings
from agent.dialogue import Role, Turn
from agent.errors import InvalidBrief
from agent.structure import ANY_OBJECT, read_schema
from service.http.validation import shown_name

MAX_CHOICES = 8
MAX_MESSAGES = 256
MAX_MESSAGE_CHARS = 100_000
MAX_TOP_LOGPROBS = 20
_NO_TOOLS = "is not supported: this node has no tools; leave it out"
_NOT_TAKEN = "is not supported; leave it out"


class TextPart(BaseModel):
    """A part of a message; text is all that this node reads."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str = Field(max_length=MAX_MESSAGE_CHARS)


class Message(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_MESSAGE_CHARS)] | Annotated[list[TextPart], Field(max_length=64)]
    name: Annotated[str, Field(max_length=64)] | None = Field(default=None, description="Taken, and not used.")
    refusal: None = None

    def turn(self) -> Turn:
        """The message as a turn; `developer` is the newer name of `system`."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Turn(Role.SYSTEM if self.role == "developer" else Role(self.role), content)


class StreamOptions(BaseModel):
    """What a stream tells beside its text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = Field(default=None, description="Tell the tokens in a last chunk.")
    include_obfuscation: bool | None = Field(default=None, description="Taken, and not used.")


class TextFormat(BaseModel):
    """Plain text."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]


class JsonObjectFormat(BaseModel):
    """Any JSON object."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["json_object"]


class NamedSchema(BaseModel):
    """A JSON Schema with its name."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64, pattern=r"^[a-zA-Z0-9_-]+$")
    description: Annotated[str, Field(max_length=2_000)] | None = None
    json_schema: dict[str, JsonValue] = Field(alias="schema")
    strict: bool | None = Field(default=None, description="Taken; decoding always keeps to the schema.")


class JsonSchemaFormat(BaseModel):
    """JSON that fits a schema."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["json_schema"]
    json_schema: NamedSchema


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


class ChatRequest(BaseModel):
    """A conversation to go on with. A field that is null counts as not given."""

    model_config = ConfigDict(
        extra="forbid",
        allow_inf_nan=False,
        json_schema_extra={
            "examples": [
                {
                    "model": "coloq",
                    "messages": [
                        {"role": "system", "content": "You write short product texts."},
                        {"role": "user", "content": "Announce our new bicycle bell."},
                    ],
                    "max_tokens": 60,
                    "metadata": {"language": "en"},
                }
            ]
        },
    )

    model: str = Field(min_length=1, max_length=200, description="`coloq`, or a version of it.", examples=["coloq"])
    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES, description="The last one is a user's.")
    stream: bool | None = Field(default=None, description="Send the text as it comes, as server-sent events.")
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=None, ge=1, le=MAX_CHOICES, description="How many choices.")
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=200)]] | None,
        Field(max_length=4),
        BeforeValidator(_one_or_more),
    ] = Field(default=None, description="Texts that end the reply; they are not part of it.", examples=[["\n\n"]])
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1, description="Repeats a reply of one policy.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="Sampling temperature; 0 is greedy.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling; 1 keeps every token.")
    max_tokens: int | None = Field(default=None, ge=1, description="Longest reply in tokens.")
    max_completion_tokens: int | None = Field(default=None, ge=1, description="The newer name of `max_tokens`.")
    logprobs: bool | None = Field(default=None, description="Tell the log-probability of every token.")
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS, description="Tell the likeliest, too.")
    response_format: Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None = (
        None
    )
    user: str | None = Field(default=None, max_length=128, description="Your own opaque id of the person behind it.")
    metadata: dict[str, Annotated[str, Field(max_length=512)]] | None = Field(
        default=None,
        max_length=16,
        description="`language` names the language that the reply is judged by; the rest is not used.",
        examples=[{"language": "de"}],
    )
    presence_penalty: float | None = Field(default=None, description="0 only.")
    frequency_penalty: float | None = Field(default=None, description="0 only.")
    logit_bias: dict[str, JsonValue] | None = Field(default=None, description="Empty only.")
    modalities: list[Annotated[str, Field(max_length=20)]] | None = Field(
        default=None, max_length=4, description="`text` only."
    )
    tools: JsonValue = Field(default=None, description="Refused.")
    tool_choice: JsonValue = Field(default=None, description="Refused, except `none` and `auto`.")
    functions: JsonValue = Field(default=None, description="Refused.")
    function_call: JsonValue = Field(default=None, description="Refused.")
    audio: JsonValue = Field(default=None, description="Refused.")
    web_search_options: JsonValue = Field(default=None, description="Refused.")
    store: JsonValue = Field(default=None, description="Taken, and not used.")
    parallel_tool_calls: JsonValue = Field(default=None, description="Taken, and not used.")
    service_tier: JsonValue = Field(default=None, description="Taken, and not used.")
    reasoning_effort: JsonValue = Field(default=None, description="Taken, and not used.")
    verbosity: JsonValue = Field(default=None, description="Taken, and not used.")
    prediction: JsonValue = Field(default=None, description="Taken, and not used.")
    safety_identifier: JsonValue = Field(default=None, description="Taken, and not used.")
    prompt_cache_key: JsonValue = Field(default=None, description="Taken, and not used.")
    prompt_cache_options: JsonValue = Field(default=None, description="Taken, and not used.")
    prompt_cache_retention: JsonValue = Field(default=None, description="Taken, and not used.")
    moderation: JsonValue = Field(default=None, description="Refused.")

    def dialogue(self, tenant: TenantSettings, language: str | None, version: int | None) -> Dialogue:
        """The conversation.

        Args:
            language: what the header says; ``metadata.language`` goes before it.
            version: the policy version that the model's name pins.

        Raises:
            InvalidBrief: the tenant does not have the language, or a rule of conversations is broken.
        """
        return Dialogue(
            tenant=tenant.id,
            turns=tuple(message.turn() for message in self.messages),
            languages=self._languages(tenant, language),
            end_user=self.user or None,
            policy_version=version,
            names_language=bool(self._named_language(language)[1]),
        )

    def sampling(self, defaults: AgentConfig) -> Sampling:
        """The sampling parameters, with the node's defaults.

        Raises:
            InvalidBrief: a value that the node does not take.
        """
        self._refuse_what_is_not_there()
        return Sampling(
            max_tokens=self._max_tokens(defaults.max_tokens),
            temperature=self.temperature if self.temperature is not None else defaults.temperature,
            top_p=self.top_p if self.top_p is not None else 1.0,
            seed=self.seed % 2**32 if self.seed is not None else None,
            stop=tuple(self.stop or ()),
            schema=self._schema(),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )

    def _languages(self, tenant: TenantSettings, language: str | None) -> tuple[str, ...]:
        field, named = self._named_language(language)
        if not named:
            return tuple(tenant.languages)
        code = tenant.language_of(named) or tenant.fallback_language
        if code is None:
            known = ", ".join(sorted(tenant.languages))
            raise InvalidBrief(field, f"must be one of this tenant's languages ({known}), got '{shown_name(named)}'")
        return (code,)

    def _named_language(self, header: str | None) -> tuple[str, str | None]:
        """Where the caller names the language, and which; None when it does not."""
        metadata = (self.metadata or {}).get("language")
        return ("metadata.language", metadata) if metadata else ("X-Language", header)

    def _max_tokens(self, limit: int) -> int:
        given = [value for value in (self.max_tokens, self.max_completion_tokens) if value is not None]
        if len(set(given)) > 1:
            raise InvalidBrief("max_completion_tokens", f"must equal max_tokens, got {given[1]} and {given[0]}")
        field = "max_tokens" if self.max_tokens is not None else "max_completion_tokens"
        if given and given[0] > limit:
            raise InvalidBrief(field, f"must be between 1 and {limit}, got {given[0]}")
        return given[0] if given else limit

    def _schema(self) -> str | None:
        if isinstance(self.response_format, JsonObjectFormat):
            return ANY_OBJECT
        if not isinstance(self.response_format, JsonSchemaFormat):
            return None
        try:
            return read_schema(self.response_format.json_schema.json_schema)
        except InvalidBrief as error:
            raise InvalidBrief(f"response_format.json_schema.{error.field}", error.message) from error

    def _refuse_what_is_not_there(self) -> None:
        for field, value, rule in self._unsupported():
            if value:
                raise InvalidBrief(field, rule)
        if self.top_logprobs and not self.logprobs:
            raise InvalidBrief("top_logprobs", "needs logprobs to be true")
        if self.stream_options is not None and not self.stream:
            raise InvalidBrief("stream_options", "needs stream to be true")

    def _unsupported(self) -> list[tuple[str, Any, str]]:
        """Field, value, and the rule that any value but an empty one breaks."""
        return [
            ("tools", self.tools, _NO_TOOLS),
            ("functions", self.functions, _NO_TOOLS),
            ("tool_choice", self.tool_choice not in (None, "none", "auto"), _NO_TOOLS),
            ("function_call", self.function_call not in (None, "none", "auto"), _NO_TOOLS),
            ("audio", self.audio, _NOT_TAKEN),
            ("moderation", self.moderation, _NOT_TAKEN),
            ("web_search_options", self.web_search_options is not None, _NOT_TAKEN),
            ("logit_bias", self.logit_bias, _NOT_TAKEN),
            ("presence_penalty", self.presence_penalty, "must be 0: this node has no penalties"),
            ("frequency_penalty", self.frequency_penalty, "must be 0: this node has no penalties"),
            ("modalities", self.modalities not in (None, ["text"]), "must be ['text']: this node writes text"),
        ]
