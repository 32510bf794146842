"""Configuration that this package owns: tenants, their languages and prompts' limits."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A frozen part of the node's configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LanguageSettings(Section):
    """One language of one tenant."""

    address: Literal["formal", "informal"] | None = None
    """How readers are addressed; goes into the prompt."""
    brand_terms: tuple[str, ...] = ()
    """Names that may stand in any language; the language check ignores them."""
    reward_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Overrides of `rewards.weights` for this tenant and language."""


class TenantSettings(Section):
    """One tenant."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    """Name used in keys, logs and metrics: lower-case letters, digits, `-` and `_`."""
    key_hashes: tuple[Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")], ...] = ()
    """Hashes of the tenant's API keys; `coloq key new` prints a key once, with the hash for this list."""
    languages: dict[str, LanguageSettings] = Field(min_length=1)
    """ISO 639-1 codes of the languages this tenant may ask for, each with its settings."""
    idempotency: Literal["header", "body"] = "header"
    """How a repeated call is recognised: by its `Idempotency-Key`, or, where there is none, by its body."""


class AgentConfig(Section):
    """Section `[agent]`."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    """Default sampling temperature of replies."""
    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Default and highest number of tokens of a reply."""
    hold_s: Annotated[float, Field(gt=0, le=300)] = 25.0
    """How long a call is held before it becomes a job and is answered with 202."""
