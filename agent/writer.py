"""The content agent: a brief goes in, a judged and journalled reply comes out.

    brief ─► prompt ─► token ids ─► engine (live priority) ─► language verdict ─► reply
                                                                        └─► journal (shielded)

Knows neither HTTP nor the store: the engine, the encoder and the journal are handed in.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from pydantic import JsonValue

from agent.alternatives import distinct, split_alternatives
from agent.brief import Brief, Kind
from agent.completion import Completion, Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.edits import Edit, find_edits
from agent.episode import Episode, PromptRef, Reply
from agent.errors import InvalidBrief
from agent.keeper import EpisodeKeeper
from agent.language import primary_code
from agent.ports import Engine, GenerateRequest, Journal, Listener, Priority, PromptEncoder
from agent.prompt import PromptLibrary
from agent.structure import prose_of, read_reply
from agent.verdict import LanguageVerdict


class LanguageLookup(Protocol):
    """Finds how a tenant wants a language written."""

    def find(self, tenant: str, language: str) -> LanguageSettings:
        """The settings of one language of one tenant.

        Raises:
            InvalidBrief: the tenant does not have that language.
        """
        ...


class TenantLanguages:
    """Language settings out of the node's tenants."""

    def __init__(self, tenants: Sequence[TenantSettings]) -> None:
        self._settings: Mapping[str, Mapping[str, LanguageSettings]] = {
            tenant.id: {primary_code(code): settings for code, settings in tenant.languages.items()}
            for tenant in tenants
        }

    def find(self, tenant: str, language: str) -> LanguageSettings:
        """See LanguageLookup.find."""
        languages = self._settings.get(tenant, {})
        settings = languages.get(primary_code(language))
        if settings is None:
            known = ", ".join(sorted(languages)) or "none"
            raise InvalidBrief("language", f"must be a language of the tenant ({known}), got {language!r}")
        return settings


class ContentAgent:
    """Answers briefs. One agent serves all tenants; it keeps nothing between requests but journal writes in flight."""

    def __init__(
        self,
        engine: Engine,
        encoder: PromptEncoder,
        prompts: PromptLibrary,
        contract: LanguageContract,
        journal: Journal,
        languages: LanguageLookup,
        on_journal_failure: Callable[[str, Exception], None],
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._prompts = prompts
        self._contract = contract
        self._languages = languages
        self.keeper = EpisodeKeeper(journal, on_journal_failure)

    async def write(
        self, brief: Brief, sampling: Sampling, *, request_id: str, listener: Listener | None = None
    ) -> Reply:
        """Answer a brief and journal the episode. ``duration_ms`` ends before the journal write.

        Cancelling the call aborts the generation; once the reply exists, its journal write completes regardless. A
        journal failure goes to ``on_journal_failure`` (with the tenant) and never fails the reply. A ``listener`` hears
        the first completion as it is sampled; what counts is the reply.

        Raises:
            InvalidBrief: the tenant does not have the brief's language.
            EngineError: generation failed, PromptTooLong, SchemaNotMet and EngineDead among them.
        """
        started = time.perf_counter()
        settings = self._languages.find(brief.tenant, brief.language)
        prompt = self._prompts.render(brief, address=settings.address)
        token_ids = self._encoder.encode(prompt.system, prompt.user)
        request = GenerateRequest(
            request_id, token_ids, sampling, Priority.LIVE, cache_scope=brief.tenant, listener=listener
        )
        completions = [await self._engine.generate(request)]
        if brief.num_alternatives is not None:
            completions += await self._more_alternatives(request, completions[0], brief.num_alternatives)
        brand_terms = (*settings.brand_terms, *brief.brand_terms)
        reply = await self._reply(request_id, brief, completions, brand_terms, started)
        await self.keeper.keep(_episode(request_id, brief, prompt.ref, completions, reply.verdict))
        return reply

    async def drain(self) -> None:
        """Wait for journal writes whose callers are gone."""
        await self.keeper.drain()

    async def _more_alternatives(self, request: GenerateRequest, first: Completion, wanted: int) -> list[Completion]:
        """One more completion for each alternative that ``first`` does not hold; none where sampling is greedy."""
        num_missing = wanted - len(distinct(split_alternatives(first.text), wanted))
        if request.sampling.temperature == 0:
            return []
        others = [_sibling(request, number) for number in range(1, num_missing + 1)]
        return await generate_all(self._engine, others)

    async def _reply(
        self,
        request_id: str,
        brief: Brief,
        completions: Sequence[Completion],
        brand_terms: Sequence[str],
        started: float,
    ) -> Reply:
        work = _work(brief, completions)
        if brief.kind is Kind.CORRECT:
            work = replace(work, edits=await asyncio.to_thread(find_edits, brief.text, work.text))
        judged = work.text if brief.schema is None else prose_of(work.text)
        served = completions[0]
        return Reply(
            request_id=request_id,
            text=work.text,
            language=brief.language,
            verdict=self._contract.judge(judged, brief.language, brand_terms),
            policy_version=served.versions.last,
            finish_reason=served.finish_reason.value,
            prompt_tokens=len(served.prompt_token_ids),
            completion_tokens=sum(len(completion.token_ids) for completion in completions),
            duration_ms=(time.perf_counter() - started) * 1000,
            timing=served.timing,
            edits=work.edits,
            alternatives=work.alternatives,
            data=work.data,
        )


async def generate_all(engine: Engine, requests: Sequence[GenerateRequest]) -> list[Completion]:
    """The completions of several requests, sampled together, in order. The first failure aborts the others.

    Raises:
        EngineError: that failure.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(engine.generate(request)) for request in requests]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in running]


def _sibling(request: GenerateRequest, number: int) -> GenerateRequest:
    """The same prompt with a seed of its own, heard by nobody."""
    seed = request.sampling.seed
    sampling = replace(request.sampling, seed=None if seed is None else (seed + number) % 2**32)
    return replace(request, request_id=f"{request.request_id}-{number}", sampling=sampling, listener=None)


@dataclass(frozen=True, slots=True)
class _Work:
    """What a brief's completions come to."""

    text: str
    edits: tuple[Edit, ...] | None = None
    alternatives: tuple[str, ...] | None = None
    data: JsonValue = None


def _work(brief: Brief, completions: Sequence[Completion]) -> _Work:
    """Raises SchemaNotMet. Alternatives out of several completions stand in ``text`` one to a line."""
    text = completions[0].text
    if brief.schema is not None:
        return _Work(text, data=read_reply(text, brief.schema))
    if brief.num_alternatives is None:
        return _Work(text)
    found = [item for completion in completions for item in split_alternatives(completion.text)]
    alternatives = distinct(found, brief.num_alternatives)
    return _Work(text if len(completions) == 1 else "\n".join(alternatives), alternatives=alternatives)


def _episode(
    request_id: str, brief: Brief, ref: PromptRef, completions: Sequence[Completion], verdict: LanguageVerdict
) -> Episode:
    return Episode(request_id, datetime.now(UTC), brief, ref, tuple(completions), served=0, verdict=verdict)
