"""The content agent: a brief goes in, a judged and journalled reply comes out.

    brief ─► prompt ─► token ids ─► engine (live priority) ─► best of ─► language verdict ─► reply
                                                                                   └─► journal (shielded)

Knows neither HTTP nor the store: the engine, the encoder, the ranker and the journal are handed in.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

from agent.alternatives import ONE, Alternatives
from agent.brief import Brief
from agent.completion import Completion, Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.defaults import completed
from agent.episode import Episode, Reply
from agent.errors import InvalidBrief
from agent.language import primary_code
from agent.ports import Engine, GenerateRequest, Journal, Priority, PromptEncoder, Ranker
from agent.prompt import PromptLibrary
from agent.siblings import siblings
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
        ranker: Ranker,
        journal: Journal,
        languages: LanguageLookup,
        on_journal_failure: Callable[[str, Exception], None],
    ) -> None:
        self._engine = engine
        self._encoder = encoder
        self._prompts = prompts
        self._contract = contract
        self._ranker = ranker
        self._journal = journal
        self._languages = languages
        self._on_journal_failure = on_journal_failure
        self._appends: set[asyncio.Task[None]] = set()

    async def write(
        self, brief: Brief, sampling: Sampling, *, request_id: str, alternatives: Alternatives = ONE
    ) -> Reply:
        """Answer a brief and journal the episode, with all that was sampled. ``duration_ms`` ends before the journal
        write.

        Cancelling the call aborts the generation; once the reply exists, its journal write completes regardless. A
        journal failure goes to ``on_journal_failure`` (with the tenant) and never fails the reply.

        Raises:
            InvalidBrief: the tenant does not have the brief's language, or several samples would be the same one.
            EngineError: generation failed, PromptTooLong and EngineDead among them.
        """
        started = time.perf_counter()
        alternatives.check(sampling)
        settings = self._languages.find(brief.tenant, brief.language)
        brief = completed(brief, settings)
        prompt = self._prompts.render(brief, address=settings.address)
        token_ids = self._encoder.encode(prompt.system, prompt.user)
        request = GenerateRequest(request_id, token_ids, sampling, Priority.LIVE, cache_scope=brief.tenant)
        completions = await siblings(self._engine, request, alternatives.num_samples)
        order = await self._order(brief, completions, alternatives)
        brand_terms = (*settings.brand_terms, *brief.brand_terms)
        verdict = self._contract.judge(completions[order[0]].text, brief.language, brand_terms)
        chosen = [completions[index] for index in order[: alternatives.n]]
        reply = _reply(request_id, brief, chosen, completions, verdict, started)
        await self._keep(
            Episode(request_id, datetime.now(UTC), brief, prompt.ref, completions, served=order[0], verdict=verdict)
        )
        return reply

    async def _order(
        self, brief: Brief, completions: Sequence[Completion], alternatives: Alternatives
    ) -> Sequence[int]:
        """Indices of the completions, the one to be served first."""
        if alternatives.best_of is None:
            return range(len(completions))
        return await self._ranker.rank(brief, completions)

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


def _reply(
    request_id: str,
    brief: Brief,
    chosen: Sequence[Completion],
    sampled: Sequence[Completion],
    verdict: LanguageVerdict,
    started: float,
) -> Reply:
    """The first of the chosen completions is served; tokens are counted of all that were sampled."""
    served, *others = chosen
    return Reply(
        request_id=request_id,
        text=served.text,
        language=brief.language,
        verdict=verdict,
        policy_version=served.versions.last,
        finish_reason=served.finish_reason.value,
        prompt_tokens=len(served.prompt_token_ids),
        completion_tokens=sum(len(completion.token_ids) for completion in sampled),
        duration_ms=(time.perf_counter() - started) * 1000,
        timing=served.timing,
        alternatives=tuple(completion.text for completion in others),
    )
