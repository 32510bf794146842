"""The content agent: a brief goes in, a judged and journalled reply comes out.

    brief ─► prompt ─► token ids ─► engine (live priority) ─► language verdict ─► reply
                                                                        └─► journal (shielded)

Knows neither HTTP nor the store: the engine, the encoder and the journal are handed in.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from agent.brief import Brief
from agent.completion import Completion, Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.defaults import completed
from agent.episode import Episode, PromptRef, Reply
from agent.errors import InvalidBrief
from agent.language import primary_code
from agent.ports import Engine, GenerateRequest, Journal, Priority, PromptEncoder
from agent.prompt import PromptLibrary
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
        self._journal = journal
        self._languages = languages
        self._on_journal_failure = on_journal_failure
        self._appends: set[asyncio.Task[None]] = set()

    async def write(self, brief: Brief, sampling: Sampling, *, request_id: str) -> Reply:
        """Answer a brief and journal the episode. ``duration_ms`` ends before the journal write.

        Cancelling the call aborts the generation; once the reply exists, its journal write completes regardless. A
        journal failure goes to ``on_journal_failure`` (with the tenant) and never fails the reply.

        Raises:
            InvalidBrief: the tenant does not have the brief's language.
            EngineError: generation failed, PromptTooLong and EngineDead among them.
        """
        started = time.perf_counter()
        settings = self._languages.find(brief.tenant, brief.language)
        brief = completed(brief, settings)
        prompt = self._prompts.render(brief, address=settings.address)
        token_ids = self._encoder.encode(prompt.system, prompt.user)
        completion = await self._engine.generate(
            GenerateRequest(request_id, token_ids, sampling, Priority.LIVE, cache_scope=brief.tenant)
        )
        brand_terms = (*settings.brand_terms, *brief.brand_terms)
        verdict = self._contract.judge(completion.text, brief.language, brand_terms)
        reply = _reply(request_id, brief, completion, verdict, started)
        await self._keep(_episode(request_id, brief, prompt.ref, completion, verdict))
        return reply

    async def drain(self) -> None:
        """Wait for journal writes whose callers are gone."""
        await asyncio.gather(*self._appends)

    async def _keep(self, episode: Episode) -> None:
        append = asyncio.create_task(self._append(episode))
        self._appends.add(append)
        append.add_done_callback(self._appends.discard)
        await asyncio.shield(append)

    async def _append(self, episode: Episode) -> None:
        try:
            await self._journal.append(episode)
        except Exception as error:  # noqa: BLE001 - a reply outlives any failure to keep it
            self._on_journal_failure(episode.brief.tenant, error)


def _episode(
    request_id: str, brief: Brief, ref: PromptRef, completion: Completion, verdict: LanguageVerdict
) -> Episode:
    return Episode(request_id, datetime.now(UTC), brief, ref, (completion,), served=0, verdict=verdict)


def _reply(request_id: str, brief: Brief, completion: Completion, verdict: LanguageVerdict, started: float) -> Reply:
    return Reply(
        request_id=request_id,
        text=completion.text,
        language=brief.language,
        verdict=verdict,
        policy_version=completion.versions.last,
        finish_reason=completion.finish_reason.value,
        prompt_tokens=len(completion.prompt_token_ids),
        completion_tokens=len(completion.token_ids),
        duration_ms=(time.perf_counter() - started) * 1000,
        timing=completion.timing,
    )
