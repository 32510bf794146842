"""What a policy was asked to sample, and what it sampled: token ids with their behaviour log-probabilities.

Tokens are stored, never re-tokenised. Knows nothing of prompts' wording, tenants or engines.
"""

from dataclasses import dataclass
from enum import StrEnum

BASE_VERSION = 0
"""The policy version of the untuned model."""
_LOWEST_TEMPERATURE = 0.01
"""vLLM raises lower ones to this, but for 0, and records what was asked for."""


class Bias(StrEnum):
    """Why recorded log-probabilities are not those of ``softmax(logits / temperature)``.

    Each is also the reason under which tuning counts what it leaves out for it.
    """

    GREEDY = "greedy"
    """At temperature 0 the best token is taken, none is drawn; below 0.01 vLLM samples at 0.01."""
    TOP_P = "top_p"
    TOP_K = "top_k"
    MIN_P = "min_p"
    SCHEMA = "schema"
    """Decoding kept to the tokens that a JSON Schema allows."""
    PENALTIES = "penalties"
    """Logits were changed by the tokens before them."""


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
    repetition_penalty: float = 1.0
    """Divides the logits of tokens that were there before; 1 changes nothing."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    schema: str | None = None
    """JSON Schema (its text) that the reply is decoded to fit."""
    top_logprobs: int | None = None
    """Also tell this many of the most probable tokens at each position; None tells no tokens (Completion.tokens)."""

    @property
    def bias(self) -> Bias | None:
        """The first reason why a trainer cannot compute the probabilities that were sampled from; None when it can.

        Truncation and decoding by a schema renormalise over the kept tokens and penalties move logits, so that the
        ratio to the full softmax carries a factor that is none of the policy's (DESIGN section 10). Temperature alone
        is no bias: the trainer divides its logits by the same one.
        """
        found = {
            Bias.GREEDY: self.temperature < _LOWEST_TEMPERATURE,
            Bias.TOP_P: self.top_p != 1.0,
            Bias.TOP_K: self.top_k != 0,
            Bias.MIN_P: self.min_p != 0.0,
            Bias.SCHEMA: self.schema is not None,
            Bias.PENALTIES: (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) != (1.0, 0.0, 0.0),
        }
        return next((bias for bias, applies in found.items() if applies), None)


@dataclass(frozen=True, slots=True)
class VersionSpan:
    """First and last policy version that sampled a token of a completion. Equal with method ``adapter``.

    With method ``full`` a publication may fall between two tokens. Which two, only the engine process knows: the front
    process hears of a completion once, at its end. So the whole completion counts as sampled by ``first``, which never
    makes it younger than it is.
    """

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
    """Natural log-probability of each sampled token, as vLLM's ``processed_logprobs`` mode records it: of the softmax
    over the logits after penalties, division by the temperature, min_p, top_k and top_p, renormalised over the tokens
    that those left. Without them (``sampling.bias`` is None) it is ``log_softmax(logits / temperature)``, which a
    trainer can compute. A greedy token has that of temperature 1."""
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
