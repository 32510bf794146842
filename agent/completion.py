"""What a policy was asked to sample, and what it sampled: token ids with their behaviour log-probabilities.

Tokens are stored, never re-tokenised. Knows nothing of prompts' wording, tenants or engines.
"""

from dataclasses import dataclass
from enum import StrEnum

BASE_VERSION = 0
"""The policy version of the untuned model."""


class FinishReason(StrEnum):
    """Why sampling ended."""

    STOP = "stop"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of one generation."""

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps the whole vocabulary."""
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: str | None = None
    """JSON Schema (its text) that the reply is decoded to fit."""
    top_logprobs: int | None = None
    """Also tell this many of the most probable tokens at each position; None tells no tokens (Completion.tokens)."""

    @property
    def trainable(self) -> bool:
        """True when the recorded log-probabilities are those of the full softmax at ``temperature``.

        Truncated sampling and decoding by a schema renormalise over the kept tokens, which biases the importance ratio
        (DESIGN section 10).
        """
        return (
            self.temperature > 0 and self.top_p == 1.0 and self.top_k == 0 and self.min_p == 0.0 and self.schema is None
        )


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """First and last policy version that sampled a token of a completion. Equal with method ``adapter``."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class GenerationTiming:
    """How long one generation took, as its caller waited for it."""

    first_token_s: float
    """Seconds from handing the request to the engine until its first token."""
    inter_token_s: float | None
    """Mean seconds between its tokens; None for a single token."""


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A token as text, with its natural log-probability."""

    text: str
    logprob: float


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A token that was sampled, and the most probable ones at its position, best first."""

    chosen: TokenChoice
    top: tuple[TokenChoice, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled sequence. ``len(token_ids) == len(logprobs)``; a stop token that ended it is in ``token_ids``."""

    text: str
    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """Natural log-probability of each sampled token under the distribution that was sampled (temperature included)."""
    sampling: Sampling
    finish_reason: FinishReason
    versions: VersionSpan
    timing: GenerationTiming | None = None
    """None when the engine did not measure it."""
    tokens: tuple[SampledToken, ...] = ()
    """The tokens as text, when the sampling parameters ask for them. Never journalled: the ids say the same."""

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.logprobs):
            raise ValueError(
                f"a completion needs one logprob per token, got {len(self.token_ids)} tokens, "
                f"{len(self.logprobs)} logprobs"
            )
