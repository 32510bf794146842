"""The seams that this package consumes, as Protocols. Their fakes ship in agent.fakes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from agent.brief import Brief
from agent.completion import Completion, SampledToken, Sampling
from agent.dialogue import Turn
from agent.episode import Episode
from agent.selection import Selection


class Priority(IntEnum):
    """Scheduling priority; lower goes first. A rollout never makes a live request wait."""

    LIVE = 0
    PROBE = 5
    ROLLOUT = 10


@dataclass(frozen=True, slots=True)
class Delta:
    """What has been sampled since the last delta of the same request."""

    text: str
    tokens: tuple[SampledToken, ...] = ()
    """Filled when the sampling parameters ask for tokens."""


Listener = Callable[[Delta], None]
"""Gets a request's deltas in order, on the event loop. Together they are the completion's text. Must not raise."""


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a request is for: what decides which policy answers when the request names none."""

    tenant: str
    language: str
    """ISO 639-1 code of the language that is asked for."""
    subject: str
    """The tenant's end user, or the request's id where none is named: one subject stays with one policy."""
    is_named: bool = False
    """Whether ``subject`` is an end user, who may come again."""

    @classmethod
    def of(cls, brief: Brief, request_id: str) -> "Audience":
        """The audience of a brief."""
        named = brief.end_user is not None
        return cls(brief.tenant, brief.language, brief.end_user or request_id, named)


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt to sample from."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    sampling: Sampling
    priority: Priority = Priority.LIVE
    cache_scope: str = ""
    """Requests share prefix-cache blocks only within one scope (the tenant) and one policy version."""
    policy_version: int | None = None
    """None samples the policy of the audience; a number samples that version, which must be installed."""
    listener: Listener | None = field(default=None, compare=False)
    """Whoever wants the text as it comes; without one the engine makes text once, at the end."""
    audience: Audience | None = None
    """None is nobody in particular: without a named version the active policy answers."""


class Engine(Protocol):
    """Samples completions."""

    async def generate(self, request: GenerateRequest) -> Completion:
        """Sample one completion; cancelling the call aborts the generation.

        Raises:
            PromptTooLong: prompt plus ``max_tokens`` exceed the context window.
            InvalidBrief: the engine cannot decode to the sampling parameters' schema.
            EngineDead: the engine process is gone and did not come back in time.
            EngineError: any other failure of this one request.
        """
        ...


class PromptEncoder(Protocol):
    """Turns a system and a user message into the token ids of a chat prompt."""

    def encode(self, system: str, user: str) -> tuple[int, ...]:
        """Token ids of the chat prompt, ending where the reply begins.

        Special tokens inside ``system`` and ``user`` are neutralised: they never become control tokens.
        """
        ...


class DialogueEncoder(Protocol):
    """Turns a conversation into the token ids of a chat prompt."""

    def encode_dialogue(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Token ids of the conversation, ending where the reply begins; special tokens are neutralised.

        Raises:
            InvalidBrief: the model's chat template does not take such a conversation.
        """
        ...


class Ranker(Protocol):
    """Tells better replies from worse ones, while their caller waits."""

    async def rank(self, brief: Brief, completions: Sequence[Completion]) -> list[int]:
        """Indices of the completions, the best first. Equals, and those that cannot be judged, keep their order; the
        latter come last."""
        ...


class Journal(Protocol):
    """Where episodes are kept for tuning."""

    async def append(self, episode: Episode) -> None:
        """Store one episode durably.

        Raises:
            StoreError: the store could not take it.
        """
        ...


@dataclass(frozen=True, slots=True)
class Claim:
    """An episode claimed for tuning, with the handle that settles it."""

    episode: Episode
    handle: str
    again: bool = False
    """Whether the episode may have been handed out and settled before: its prompt may serve once more, its completions
    may have been trained on."""


class ClaimingJournal(Journal, Protocol):
    """A journal that tuning draws prompts from."""

    async def claim(
        self, languages: Sequence[str], num_prompts: int, *, seed: int, selection: Selection | None = None
    ) -> list[Claim]:
        """Claim up to ``num_prompts`` training episodes of different prompts, balanced by language, then by tenant.

        Never-claimed episodes go first; when they run out, the prompts of settled ones within retention are drawn again
        at random (``seed``). Episodes of the held-out split are never returned.

        Args:
            selection: the step's, with its caps and the run's tally: within a language a prompt that the run has
                claimed comes again only after all others. What is claimed is taken in it, what is passed over counted.
                Without one there are no caps, and prompts differ within this call.

        Raises:
            StoreError: the store could not be reached.
        """
        ...

    async def reclaim(self, handles: Sequence[str]) -> list[Claim]:
        """Claim episodes that ``claim`` handed out before, settled or not, in this order. Episodes that are no longer
        kept are left out.

        Raises:
            StoreError: the store could not be reached.
        """
        ...

    async def settle(self, claims: Sequence[Claim]) -> None:
        """Mark claims as done. A claim that is never settled (a crash) is handed out again to a later run."""
        ...

    async def held_out(self, languages: Sequence[str], num_prompts: int, *, tenant: str | None = None) -> list[Episode]:
        """Up to ``num_prompts`` episodes of the held-out split, balanced by language, the same ones on every call
        while the journal does not grow; of one tenant where one is named."""
        ...
