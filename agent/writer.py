"""The content agent: a brief goes in, a judged and journalled reply comes out.

    brief ─► prompt ─► token ids ─► engine (live priority) ─► best of ─► language verdict ─► repair? ─► reply
                                                                                               └─► journal (shielded)

Knows neither HTTP nor the store: the engine, the encoder, the ranker and the journal are handed in.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from agent.alternatives import Alternatives
from agent.brief import Brief, Kind
from agent.commission import Commission
from agent.completion import Completion
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.defaults import completed
from agent.draft import Draft, Judge
from agent.episode import Episode, PromptRef, Reply
from agent.errors import InvalidBrief
from agent.keeper import EpisodeKeeper
from agent.language import primary_code
from agent.outcome import read_outcome
from agent.ports import Audience, Engine, GenerateRequest, Journal, Priority, PromptEncoder, Ranker
from agent.prompt import PromptLibrary
from agent.repairer import Repaired, Repairer, RepairOrder
from agent.siblings import sibling, siblings, together
from agent.suggestions import distinct, split_alternatives


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
        repairer: Repairer | None = None,
    ) -> None:
        """Without a ``repairer`` a reply in a wrong language is served as it is, and says so."""
        self._repairer = repairer
        self._engine = engine
        self._encoder = encoder
        self._prompts = prompts
        self._contract = contract
        self._ranker = ranker
        self._languages = languages
        self.keeper = EpisodeKeeper(journal, on_journal_failure)

    async def write(self, commission: Commission) -> Reply:
        """Answer a brief and journal the episode, with all that was sampled. ``duration_ms`` ends before the journal
        write.

        Cancelling the call aborts the generation; once the reply exists, its journal write completes regardless. A
        journal failure goes to ``on_journal_failure`` (with the tenant) and never fails the reply. What is heard as it
        comes cannot be taken back, so then nothing is repaired.

        Raises:
            InvalidBrief: the tenant does not have the brief's language, or ``alternatives`` do not go with the rest.
            EngineError: generation failed, PromptTooLong, SchemaNotMet and EngineDead among them.
        """
        started = time.perf_counter()
        brief, alternatives, listener = commission.brief, commission.alternatives, commission.listener
        alternatives.check(brief.kind, commission.sampling, is_heard=listener is not None)
        settings = self._languages.find(brief.tenant, brief.language)
        brief = completed(brief, settings)
        prompt = self._prompts.render(brief, address=settings.address, overrides=settings.prompts)
        token_ids = self._encoder.encode(prompt.system, prompt.user)
        audience = Audience.of(brief, commission.request_id)
        request = GenerateRequest(
            commission.request_id,
            token_ids,
            commission.sampling,
            Priority.LIVE,
            cache_scope=brief.tenant,
            audience=audience,
        )
        listeners = () if listener is None else (listener,)
        completions = await siblings(self._engine, request, alternatives.num_samples, listeners)
        if brief.num_alternatives is not None:
            completions += await self._more_alternatives(request, completions[0], brief.num_alternatives)
        order = await self._order(brief, completions, alternatives)
        read = partial(read_outcome, brief, num_texts=alternatives.n)
        outcome = read(completions, order)
        judge = Judge(self._contract, brief, (*settings.brand_terms, *brief.brand_terms))
        repaired = Repaired(Draft(completions, outcome, judge.of(outcome)), None)
        if self._repairer is not None and listener is None:
            repair_order = RepairOrder(request, judge, settings, read, started, commission.wait_s)
            repaired = await self._repairer.repair(repaired.draft, repair_order)
        reply = await self._reply(commission.request_id, brief, repaired, started)
        await self.keeper.keep(_episode(brief, prompt.ref, repaired, reply))
        return reply

    async def drain(self) -> None:
        """Wait for journal writes whose callers are gone."""
        await self.keeper.drain()

    async def _order(
        self, brief: Brief, completions: Sequence[Completion], alternatives: Alternatives
    ) -> Sequence[int]:
        """Indices of the completions, the one to be served first."""
        if alternatives.best_of is None:
            return range(len(completions))
        return await self._ranker.rank(brief, completions)

    async def _more_alternatives(
        self, request: GenerateRequest, first: Completion, wanted: int
    ) -> tuple[Completion, ...]:
        """One more completion for each alternative that ``first`` does not hold; none where sampling is greedy."""
        if request.sampling.temperature == 0:
            return ()
        num_missing = wanted - len(distinct(split_alternatives(first.text), wanted))
        others = [sibling(request, number) for number in range(1, num_missing + 1)]
        return tuple(await together([self._engine.generate(other) for other in others]))

    async def _reply(self, request_id: str, brief: Brief, repaired: Repaired, started: float) -> Reply:
        """The reply of a draft; tokens are counted of all that were sampled."""
        completions, outcome, repair = repaired.draft.completions, repaired.draft.outcome, repaired.repair
        served = completions[outcome.served]
        edits = await asyncio.to_thread(outcome.edits, brief) if brief.kind is Kind.CORRECT else None
        num_tokens = sum(len(completion.token_ids) for completion in completions)
        return Reply(
            request_id=request_id,
            text=outcome.text,
            language=brief.language,
            verdict=repaired.draft.verdict,
            policy_version=served.versions.last,
            finish_reason=served.finish_reason.value,
            prompt_tokens=len(served.prompt_token_ids),
            completion_tokens=num_tokens + (repair.num_tokens if repair is not None else 0),
            duration_ms=(time.perf_counter() - started) * 1000,
            timing=served.timing,
            edits=edits,
            alternatives=outcome.alternatives,
            data=outcome.data,
            repair=repair,
        )


def _episode(brief: Brief, prompt: PromptRef, repaired: Repaired, reply: Reply) -> Episode:
    return Episode(
        id=reply.request_id,
        created_at=datetime.now(UTC),
        brief=brief,
        prompt=prompt,
        completions=repaired.draft.completions,
        served=repaired.draft.outcome.served,
        verdict=reply.verdict,
        repair=repaired.repair,
    )
