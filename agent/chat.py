"""The chat agent: a conversation goes in, judged and journalled choices come out.

    turns ─► token ids ─► engine (live priority), once per choice ─► language verdict of each ─► reply
                                                                                    └─► journal (shielded)

A conversation brings its own instructions, so no template of ours is added: the language is judged, not asked for. A
single answer in a wrong language is sampled once more when the caller named the language; one that was guessed from the
conversation, or that a stream has told already, is served as it is.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from agent.brief import Brief, Kind
from agent.completion import Completion, SampledToken, Sampling
from agent.config import LanguageSettings
from agent.contract import LanguageContract
from agent.dialogue import Role, Turn
from agent.draft import Draft, Judge
from agent.episode import Episode, PromptRef, Reply
from agent.errors import InvalidBrief
from agent.keeper import EpisodeKeeper
from agent.outcome import Outcome
from agent.ports import Audience, DialogueEncoder, Engine, GenerateRequest, Listener, Priority
from agent.repairer import Repaired, Repairer, RepairOrder
from agent.siblings import siblings
from agent.verdict import Verdict, overall
from agent.writer import LanguageLookup

PROMPT_VERSION = "chat"
"""Stands for a template set's version in the reference of a prompt that the caller wrote."""

_TELLING_CHARS = 1_000
"""As much of a message tells its language."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A conversation that waits for its next message, of one tenant.

    Raises:
        InvalidBrief: its last turn is not a user's, or says nothing; no language.
    """

    tenant: str
    turns: tuple[Turn, ...]
    languages: tuple[str, ...]
    """What the reply may be in: the first that the last message is in, or else the first."""
    end_user: str | None = None
    policy_version: int | None = None
    """None answers with the active policy; a number with that version, which must be installed."""
    names_language: bool = False
    """True when the caller said which language the reply is to be in."""

    def __post_init__(self) -> None:
        if not self.turns or self.turns[-1].role is not Role.USER or not self.turns[-1].content.strip():
            raise InvalidBrief("messages", "must end with a message of the user that is not empty")
        if not self.languages:
            raise InvalidBrief("language", "must name at least one language, got none")


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer."""

    reply: Reply
    tokens: tuple[SampledToken, ...]
    """Its tokens, when the sampling parameters ask for them."""


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What the caller gets: one or more choices of one policy version."""

    request_id: str
    choices: tuple[Choice, ...]

    @property
    def language(self) -> str:
        return self.choices[0].reply.language

    @property
    def policy_version(self) -> int:
        return self.choices[0].reply.policy_version

    @property
    def verdict(self) -> Verdict:
        """That of all choices together."""
        return overall([choice.reply.verdict.verdict for choice in self.choices])

    @property
    def prompt_tokens(self) -> int:
        return sum(choice.reply.prompt_tokens for choice in self.choices)

    @property
    def completion_tokens(self) -> int:
        return sum(choice.reply.completion_tokens for choice in self.choices)


class ChatAgent:
    """Answers conversations. Keeps nothing between requests."""

    def __init__(
        self,
        engine: Engine,
        encoder: DialogueEncoder,
        contract: LanguageContract,
        keeper: EpisodeKeeper,
        languages: LanguageLookup,
        repairer: Repairer | None = None,
    ) -> None:
        self._repairer = repairer
        self._engine = engine
        self._encoder = encoder
        self._contract = contract
        self._keeper = keeper
        self._languages = languages

    async def answer(
        self,
        dialogue: Dialogue,
        sampling: Sampling,
        *,
        request_id: str,
        num_choices: int = 1,
        listeners: Sequence[Listener] = (),
        wait_s: float | None = None,
    ) -> ChatReply:
        """Answer a conversation and journal the episode; the first choice is the one that counts as served.

        Cancelling the call aborts the generations. ``listeners``, one for each choice when there are any, hear them as
        they are sampled. With a seed each choice gets the next one. A repair ends when the caller has waited for
        ``wait_s`` seconds; None sets no such bound.

        Raises:
            InvalidBrief: the tenant does not have the language, or the model takes no such conversation.
            EngineError: generation failed, PromptTooLong and EngineDead among them.
        """
        if listeners and len(listeners) != num_choices:
            raise ValueError(f"every choice needs its listener, got {len(listeners)} for {num_choices}")
        started = time.perf_counter()
        language = self._language(dialogue)
        settings = self._languages.find(dialogue.tenant, language)
        token_ids = self._encoder.encode_dialogue(dialogue.turns)
        request = GenerateRequest(
            request_id,
            token_ids,
            sampling,
            Priority.LIVE,
            cache_scope=dialogue.tenant,
            policy_version=dialogue.policy_version,
            audience=Audience(
                dialogue.tenant, language, dialogue.end_user or request_id, dialogue.end_user is not None
            ),
        )
        completions = await siblings(self._engine, request, num_choices, listeners)
        brief = _brief(dialogue, language, settings, sampling.schema)
        judge = Judge(self._contract, brief, settings.brand_terms)
        repaired = [_unrepaired(judge, completion) for completion in completions]
        if self._repairer is not None and num_choices == 1 and not listeners and dialogue.names_language:
            order = RepairOrder(request, judge, settings, _read, started, wait_s)
            repaired = [await self._repairer.repair(repaired[0].draft, order)]
        choices = tuple(_choice(index, request_id, brief, item, started) for index, item in enumerate(repaired))
        await self._keeper.keep(_episode(request_id, brief, repaired, choices))
        return ChatReply(request_id, choices)

    def _language(self, dialogue: Dialogue) -> str:
        if len(dialogue.languages) == 1:
            return dialogue.languages[0]
        said = dialogue.turns[-1].content[:_TELLING_CHARS]
        spoken = (code for code in dialogue.languages if self._contract.judge(said, code).verdict is Verdict.PASS)
        return next(spoken, dialogue.languages[0])


def _read(completions: Sequence[Completion], order: Sequence[int]) -> Outcome:
    """The first is served, as it is."""
    return Outcome(order[0], completions[order[0]].text)


def _unrepaired(judge: Judge, completion: Completion) -> Repaired:
    outcome = _read([completion], [0])
    return Repaired(Draft((completion,), outcome, judge.of(outcome)), None)


def _choice(index: int, request_id: str, brief: Brief, repaired: Repaired, started: float) -> Choice:
    draft = repaired.draft
    completion = draft.completions[draft.outcome.served]
    reply = Reply(
        request_id=request_id,
        text=draft.outcome.text,
        language=brief.language,
        verdict=draft.verdict,
        policy_version=completion.versions.last,
        finish_reason=completion.finish_reason.value,
        prompt_tokens=len(completion.prompt_token_ids) if index == 0 else 0,
        completion_tokens=sum(len(sampled.token_ids) for sampled in draft.completions),
        duration_ms=(time.perf_counter() - started) * 1000,
        timing=completion.timing,
        repair=repaired.repair,
    )
    return Choice(reply, completion.tokens)


def _brief(dialogue: Dialogue, language: str, settings: LanguageSettings, schema: str | None) -> Brief:
    """The conversation as the record that tuning reads."""
    return Brief(
        tenant=dialogue.tenant,
        kind=Kind.CHAT,
        language=language,
        instructions=dialogue.turns[-1].content,
        text="\n".join(f"{turn.role}: {turn.content}" for turn in dialogue.turns[:-1]),
        end_user=dialogue.end_user,
        brand_terms=settings.brand_terms,
        schema=schema,
        allowance=settings.allowance,
    )


def _episode(request_id: str, brief: Brief, repaired: Sequence[Repaired], choices: Sequence[Choice]) -> Episode:
    """All that was sampled; what is served of the first choice counts as served."""
    completions = (completion for item in repaired for completion in item.draft.completions)
    return Episode(
        id=request_id,
        created_at=datetime.now(UTC),
        brief=brief,
        prompt=PromptRef(PROMPT_VERSION, Kind.CHAT.value, brief.language),
        completions=tuple(replace(completion, tokens=()) for completion in completions),
        served=repaired[0].draft.outcome.served,
        verdict=choices[0].reply.verdict,
        repair=repaired[0].repair,
    )
