"""Repairs a reply in a wrong language while its caller waits.

    breaks the contract ─► a sample that passes is there? serve it
                        └► auto: mostly right ─► write its wrong sentences again, then retry
                                 mostly wrong ─► retry, then write the wrong sentences of the better one again

It ends when the reply passes, after one attempt of each method, or when the time is up. What is served is the best one
there is; that it was repaired, or still fails, is said. The reply exists before any repair begins, so no failure in
here reaches its caller.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from agent.brief import Brief, Kind
from agent.completion import Bias
from agent.config import AgentConfig, LanguageSettings
from agent.draft import Draft, Judge, Reading
from agent.errors import ColoqError, SchemaNotMet
from agent.outcome import Outcome
from agent.ports import Engine, GenerateRequest, PromptEncoder
from agent.prompt import PromptLibrary
from agent.repair import Repair, RepairAttempt, RepairMethod, RepairMode, RepairOutcome
from agent.rewriting import Rewriting, SentenceWriter, Span
from agent.siblings import sibling
from agent.verdict import LanguageVerdict, Verdict

MAX_SENTENCES = 4
"""With more wrong sentences, another sample costs less than writing each of them again."""
_MOSTLY_RIGHT = 0.5
_FOR_SENTENCES = (Kind.CREATE, Kind.TRANSLATE, Kind.REWRITE)
"""A correction keeps its caller's words, a suggestion is a list of its own, a conversation has no template of ours."""


@dataclass(frozen=True, slots=True)
class RepairOrder:
    """What a repair needs to know of a request."""

    request: GenerateRequest
    """The one that the completions came from."""
    judge: Judge
    settings: LanguageSettings
    read: Reading
    started: float
    """By time.perf_counter."""
    wait_s: float | None = None
    """How long the caller waits, counted from ``started``; None when nobody is held."""

    @property
    def brief(self) -> Brief:
        return self.judge.brief


@dataclass(frozen=True, slots=True)
class Repaired:
    """A draft after its repair."""

    draft: Draft
    repair: Repair | None
    """None when nothing was tried."""


@dataclass(frozen=True, slots=True)
class Repairer:
    """Repairs replies within ``budget_s`` seconds. Keeps nothing between requests."""

    engine: Engine
    writer: SentenceWriter
    mode: RepairMode
    budget_s: float

    @classmethod
    def of(cls, engine: Engine, encoder: PromptEncoder, prompts: PromptLibrary, config: AgentConfig) -> "Repairer":
        """The repairer of a node's configuration."""
        writer = SentenceWriter(engine, encoder, prompts)
        return cls(engine, writer, RepairMode(config.repair), config.repair_budget_s)

    async def repair(self, draft: Draft, order: RepairOrder) -> Repaired:
        """The draft as it should be served; itself when it does not fail, or nothing may be done about it."""
        if draft.verdict.verdict is not Verdict.FAILED or self.mode is RepairMode.OFF:
            return Repaired(draft, None)
        if (passing := _passing_sibling(draft, order)) is not None:
            attempt = RepairAttempt(RepairMethod.SIBLING, RepairOutcome.REPAIRED)
            return Repaired(_marked(passing), Repair((attempt,)))
        methods = self._methods(draft, order)
        if not methods:
            return Repaired(draft, None)
        return await _Repairing(self, order, draft).run(methods)

    def _methods(self, draft: Draft, order: RepairOrder) -> list[RepairMethod]:
        """What may be tried, in order."""
        brief, sampling = order.brief, order.request.sampling
        allowed = {
            RepairMethod.SENTENCE: self.mode in (RepairMode.SENTENCE, RepairMode.AUTO)
            and brief.kind in _FOR_SENTENCES
            and brief.schema is None,
            RepairMethod.RETRY: self.mode in (RepairMode.RETRY, RepairMode.AUTO)
            and sampling.bias is not Bias.GREEDY
            and not _corrects_foreign_text(order),
        }
        sentence_first = draft.share >= _MOSTLY_RIGHT and len(draft.failing) <= MAX_SENTENCES
        methods = [RepairMethod.SENTENCE, RepairMethod.RETRY]
        if not sentence_first:
            methods.reverse()
        return [method for method in methods if allowed[method]]


def _corrects_foreign_text(order: RepairOrder) -> bool:
    """A text that breaks the contract itself is corrected as it is."""
    return order.brief.kind is Kind.CORRECT and order.judge.of_text(order.brief.text).verdict is Verdict.FAILED


def _passing_sibling(draft: Draft, order: RepairOrder) -> Draft | None:
    """The draft with another of its samples served, one that passes."""
    if order.brief.kind is Kind.SUGGEST:
        return None
    indices = range(len(draft.completions))
    for index in indices:
        if index == draft.outcome.served:
            continue
        others = [other for other in indices if other != index]
        outcome = order.read(draft.completions, [index, *others])
        if outcome.served == index and (verdict := order.judge.of(outcome)).verdict is Verdict.PASS:
            return replace(draft, outcome=outcome, verdict=verdict)
    return None


class _Repairing:
    """One repair under way."""

    def __init__(self, repairer: Repairer, order: RepairOrder, draft: Draft) -> None:
        self._repairer, self._order = repairer, order
        self._best = draft
        self._took_s = time.perf_counter() - order.started
        left = [repairer.budget_s]
        if order.wait_s is not None:
            left.append(order.wait_s - self._took_s)
        self._ends = time.perf_counter() + min(left)
        self._attempts: list[RepairAttempt] = []
        self._text: str | None = None
        self._num_tokens = 0

    async def run(self, methods: Sequence[RepairMethod]) -> Repaired:
        for method in methods:
            outcome = await self._attempt(method)
            if outcome is not None:
                self._attempts.append(RepairAttempt(method, outcome))
            if self._best.keeps_contract:
                break
        if not self._attempts:
            return Repaired(self._best, None)
        return Repaired(self._best, Repair(tuple(self._attempts), self._text, self._num_tokens))

    async def _attempt(self, method: RepairMethod) -> RepairOutcome | None:
        """What came of it; None when there is nothing for the method to do."""
        if method is RepairMethod.SENTENCE and len(self._best.failing) > MAX_SENTENCES:
            return None
        # Another whole reply takes about as long as the first one did: one that cannot end in time is not begun.
        needs_s = self._took_s if method is RepairMethod.RETRY else 0.0
        left_s = self._ends - time.perf_counter()
        if left_s <= needs_s:
            return RepairOutcome.TIMED_OUT
        act = self._rewrite if method is RepairMethod.SENTENCE else self._retry
        try:
            async with asyncio.timeout(left_s):
                return await act()
        except TimeoutError:
            return RepairOutcome.TIMED_OUT
        except ColoqError:
            return RepairOutcome.ERROR

    async def _retry(self) -> RepairOutcome:
        """One more sample of the same prompt, with the next seed: as good a sample as the first."""
        number = len(self._best.completions)
        request = replace(sibling(self._order.request, number), request_id=f"{self._order.request.request_id}-retry")
        completion = await self._repairer.engine.generate(request)
        completions = (*self._best.completions, completion)
        before, self._best = self._best, replace(self._best, completions=completions)
        if (outcome := self._outcome_of_newest()) is None:
            return RepairOutcome.NO_BETTER
        after = replace(self._best, outcome=outcome, verdict=self._order.judge.of(outcome))
        return self._take(_marked(after), text=None, than=before)

    def _outcome_of_newest(self) -> Outcome | None:
        """What would be served with the newest completion first; None when it does not fit its schema."""
        completions, read = self._best.completions, self._order.read
        newest = len(completions) - 1
        if self._order.brief.kind is Kind.SUGGEST:
            return replace(read(completions[newest:], [0]), served=newest)
        served_before = self._best.outcome.served
        others = [index for index in range(newest) if index != served_before]
        with suppress(SchemaNotMet):
            outcome = read(completions, [newest, served_before, *others])
            return outcome if outcome.served == newest else None
        return None

    async def _rewrite(self) -> RepairOutcome:
        """The wrong sentences of the best one, written again."""
        before = self._best
        rewriting = await self._repairer.writer.rewrite(
            before.outcome.text, before.failing, self._order.judge, self._order.settings, self._order.request
        )
        self._num_tokens += rewriting.num_tokens
        outcome = replace(before.outcome, text=rewriting.text)
        verdict = _with_replaced(self._order.judge.of(outcome), rewriting)
        return self._take(_marked(replace(before, outcome=outcome, verdict=verdict)), text=rewriting.text, than=before)

    def _take(self, draft: Draft, *, text: str | None, than: Draft) -> RepairOutcome:
        if not draft.is_better_than(than):
            return RepairOutcome.NO_BETTER
        self._best, self._text = draft, text
        return RepairOutcome.REPAIRED if draft.keeps_contract else RepairOutcome.BETTER


def _marked(draft: Draft) -> Draft:
    """A draft that passes after a repair says so."""
    if draft.verdict.verdict is not Verdict.PASS:
        return draft
    return replace(draft, verdict=replace(draft.verdict, verdict=Verdict.REPAIRED))


def _with_replaced(verdict: LanguageVerdict, rewriting: Rewriting) -> LanguageVerdict:
    """Sentences that stand where others were replaced, and pass, say that they were repaired."""

    def is_new(span: Span) -> bool:
        return any(start <= span[0] and span[1] <= end for start, end in rewriting.replaced)

    sentences = tuple(
        replace(item, verdict=Verdict.REPAIRED)
        if item.verdict is Verdict.PASS and is_new((item.start, item.end))
        else item
        for item in verdict.sentences
    )
    return replace(verdict, sentences=sentences)
