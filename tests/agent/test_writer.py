"""The content agent, on the shipped fakes."""

import asyncio
from collections.abc import Callable

import pytest

from agent.alternatives import Alternatives
from agent.brief import Brief, Kind
from agent.commission import Commission
from agent.completion import FinishReason, GenerationTiming, Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.edits import Edit, Reason
from agent.episode import Episode
from agent.errors import EngineDead, InvalidBrief, SchemaNotMet, StoreError
from agent.fakes import CharEncoder, FakeEngine, FakeRanker, FixedDetector, MemoryJournal
from agent.ports import Delta, Engine, GenerateRequest, Journal, Priority
from agent.prompt import PromptLibrary
from agent.verdict import Verdict
from agent.writer import ContentAgent, TenantLanguages

_REPLY = "Dieser satz ist auf Deutsch geschrieben."
_SAMPLING = Sampling(max_tokens=100, temperature=0.7, seed=1)
_BRIEF = Brief("acme", Kind.CREATE, "de", instructions="Brot {{7*7}}", brand_terms=("Coloq",))


class _Rig:
    """An agent with its fakes in reach."""

    def __init__(
        self,
        *,
        reply: str = _REPLY,
        engine: Engine | None = None,
        journal: Journal | None = None,
        max_words: int | None = None,
    ) -> None:
        self.fake_engine = FakeEngine(lambda request: reply, version=3)
        self.memory = MemoryJournal()
        self.ranker = FakeRanker(lambda text: None if "?" in text else float(len(text)))
        self.failures: list[tuple[str, Exception]] = []
        settings = LanguageSettings(address="formal", brand_terms=("Sentence Inc",), max_words=max_words)
        tenants = [TenantSettings(id="acme", languages={"de": settings})]
        self.agent = ContentAgent(
            engine or self.fake_engine,
            CharEncoder(),
            PromptLibrary.load(),
            LanguageContract(FixedDetector({"satz": "de", "sentence": "en"})),
            self.ranker,
            journal or self.memory,
            TenantLanguages(tenants),
            lambda tenant, error: self.failures.append((tenant, error)),
        )


async def test_the_reply_says_what_was_sampled_and_judged() -> None:
    """Text, verdict, policy version, token counts and finish reason are those of the completion."""
    rig = _Rig()
    reply = await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    assert (reply.request_id, reply.text, reply.language) == ("r1", _REPLY, "de")
    assert reply.verdict.verdict is Verdict.PASS
    assert reply.policy_version == 3
    assert reply.finish_reason == "stop"
    assert reply.prompt_tokens == len(rig.fake_engine.requests[0].prompt_token_ids)
    assert reply.completion_tokens == len(_REPLY) + 1  # one token per character and the stop token
    assert 0 < reply.duration_ms < 10_000


async def test_the_reply_says_how_long_its_tokens_took() -> None:
    """The engine's measurement goes on with the reply; without one there is none."""
    timing = GenerationTiming(first_token_s=0.03, inter_token_s=0.006)
    measured = _Rig(engine=FakeEngine(lambda request: _REPLY, timing=timing))
    assert (await measured.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))).timing == timing
    assert (await _Rig().agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))).timing is None


async def test_the_engine_is_asked_at_live_priority_in_the_tenants_cache_scope() -> None:
    """The request carries the rendered prompt, the sampling parameters and the tenant."""
    rig = _Rig()
    await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    (request,) = rig.fake_engine.requests
    system, user = CharEncoder.split(request.prompt_token_ids)
    assert "nur auf Deutsch" in system
    assert "Brot {{7*7}}" in user
    assert "„Sie“" in user  # the tenant's way of address
    assert (request.request_id, request.sampling, request.priority) == ("r1", _SAMPLING, Priority.LIVE)
    assert (request.cache_scope, request.policy_version) == ("acme", None)


async def test_the_episode_holds_everything() -> None:
    """What is journalled is the brief, the template's reference, the completion served and the verdict."""
    rig = _Rig()
    reply = await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    (episode,) = rig.memory.episodes
    completion = episode.completions[episode.served]
    assert (episode.id, episode.brief, episode.verdict) == ("r1", _BRIEF, reply.verdict)
    assert (episode.prompt.version, episode.prompt.kind, episode.prompt.language) == ("v1", "create", "de")
    assert completion.text == reply.text
    assert completion.logprobs == (-0.5,) * (len(_REPLY) + 1)
    assert episode.created_at.tzinfo is not None


async def test_several_texts_are_siblings_of_one_episode() -> None:
    """Three samples: the first is served, the others are alternatives, and all of them are journalled and counted."""
    rig = _Rig(engine=FakeEngine(lambda request: f"satz {request.sampling.seed}"))
    reply = await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1", alternatives=Alternatives(n=3)))
    assert (reply.text, reply.alternatives) == ("satz 1", ("satz 2", "satz 3"))
    (episode,) = rig.memory.episodes
    assert [completion.text for completion in episode.completions] == ["satz 1", "satz 2", "satz 3"]
    assert episode.served == 0
    assert len({completion.prompt_token_ids for completion in episode.completions}) == 1
    assert reply.completion_tokens == 3 * (len("satz 1") + 1)
    assert reply.prompt_tokens == len(episode.prompt_token_ids)
    assert rig.ranker.asked == []


async def test_the_best_of_several_is_served_and_all_are_journalled() -> None:
    """The rig's ranker likes long texts and cannot judge questions: of three the last is served, and one alternative
    was asked for."""
    texts = {1: "satz?", 2: "ein satz", 3: "noch ein satz"}
    rig = _Rig(engine=FakeEngine(lambda request: texts[request.sampling.seed or 0]))
    reply = await rig.agent.write(
        Commission(_BRIEF, _SAMPLING, request_id="r1", alternatives=Alternatives(n=2, best_of=3))
    )
    assert (reply.text, reply.alternatives) == ("noch ein satz", ("ein satz",))
    (episode,) = rig.memory.episodes
    assert [completion.text for completion in episode.completions] == ["satz?", "ein satz", "noch ein satz"]
    assert (episode.served, episode.verdict) == (2, reply.verdict)
    assert [brief for brief, _ in rig.ranker.asked] == [_BRIEF]


async def test_the_verdict_is_that_of_what_is_served() -> None:
    """A sample in another language that is not served fails nobody's contract."""
    texts = {1: "sentence", 2: "satz satz satz"}
    rig = _Rig(engine=FakeEngine(lambda request: texts[request.sampling.seed or 0]))
    reply = await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1", alternatives=Alternatives(best_of=2)))
    assert (reply.verdict.verdict, reply.alternatives) == (Verdict.PASS, None)


async def test_several_greedy_samples_are_refused_before_the_engine_is_asked() -> None:
    """They would be one and the same."""
    rig = _Rig()
    with pytest.raises(InvalidBrief, match="n: needs a temperature above 0"):
        await rig.agent.write(
            Commission(_BRIEF, Sampling(8, temperature=0.0), request_id="r1", alternatives=Alternatives(n=2))
        )
    assert rig.fake_engine.requests == []


async def test_several_texts_do_not_go_with_alternatives_of_their_own() -> None:
    """Refused for suggestions, which have a number of their own, and a stream cannot tell the best before its end."""
    rig = _Rig()
    with pytest.raises(InvalidBrief, match="n: is not for kind 'suggest'"):
        await rig.agent.write(Commission(_suggestion(2), _SAMPLING, request_id="r1", alternatives=Alternatives(n=2)))
    best = Alternatives(best_of=2)
    with pytest.raises(InvalidBrief, match="best_of: must not stand beside stream"):
        await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1", alternatives=best, listener=print))
    assert rig.fake_engine.requests == []


async def test_a_broken_contract_is_told_not_hidden() -> None:
    """A reply in another language is served with verdict FAILED."""
    reply = await _Rig(reply="This sentence is an English one indeed.").agent.write(
        Commission(_BRIEF, _SAMPLING, request_id="r1")
    )
    assert reply.verdict.verdict is Verdict.FAILED


async def test_brand_terms_of_tenant_and_brief_are_ignored() -> None:
    """Neither the tenant's nor the brief's names count against the language."""
    rig = _Rig(reply="Sentence Inc und Coloq: ein satz auf Deutsch.")
    reply = await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    assert reply.verdict.verdict is Verdict.PASS


async def test_a_cut_off_reply_says_so() -> None:
    """Ten tokens of a longer reply end with reason ``length``."""
    reply = await _Rig().agent.write(Commission(_BRIEF, Sampling(max_tokens=10), request_id="r1"))
    assert (reply.text, reply.finish_reason) == (_REPLY[:10], FinishReason.LENGTH.value)


async def test_a_journal_failure_is_reported_and_the_reply_served() -> None:
    """The callback gets the tenant and the error; the caller gets the reply."""
    rig = _Rig()
    rig.memory.failure = StoreError("the store is gone")
    reply = await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    assert reply.text == _REPLY
    assert rig.failures == [("acme", rig.memory.failure)]


async def test_an_engine_failure_reaches_the_caller_and_is_not_journalled() -> None:
    """Without a completion there is no episode."""
    rig = _Rig()
    rig.fake_engine.failure = EngineDead("gone")
    with pytest.raises(EngineDead):
        await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    assert rig.memory.episodes == ()


@pytest.mark.parametrize(("tenant", "language"), [("acme", "fr"), ("other", "de")])
async def test_a_language_that_the_tenant_does_not_have_is_refused(tenant: str, language: str) -> None:
    """The engine is not asked for it."""
    rig = _Rig()
    with pytest.raises(InvalidBrief, match="language"):
        await rig.agent.write(
            Commission(Brief(tenant, Kind.CREATE, language, instructions="x"), _SAMPLING, request_id="r1")
        )
    assert rig.fake_engine.requests == []


class _SlowJournal:
    """Holds every append until it is let go."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.kept: list[str] = []

    async def append(self, episode: Episode) -> None:
        self.entered.set()
        await self.release.wait()
        self.kept.append(episode.id)


async def test_a_reply_does_not_wait_for_the_journal() -> None:
    """The write has begun when the reply is there; drain waits for its end."""
    journal = _SlowJournal()
    rig = _Rig(journal=journal)
    reply = await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    assert (reply.text, journal.entered.is_set(), journal.kept) == (_REPLY, True, [])
    journal.release.set()
    await rig.agent.drain()
    assert journal.kept == ["r1"]


async def test_a_tenants_bound_is_in_the_prompt_and_in_the_journal() -> None:
    """What the model was told is what its reply will be judged by."""
    rig = _Rig(max_words=41)
    await rig.agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    (request,) = rig.fake_engine.requests
    assert "41" in CharEncoder.split(request.prompt_token_ids)[1]
    (episode,) = rig.memory.episodes
    assert episode.brief.max_words == 41


def _scripted(*texts: str) -> Callable[[GenerateRequest], str]:
    """By the request id: `r1` gets the first text, `r1-1` the second."""
    return lambda request: texts[int(request.request_id.partition("-")[2] or 0)]


async def test_a_correction_says_what_it_changed() -> None:
    """Each edit has its place in the input, what replaces it, and the kind of mistake."""
    rig = _Rig(reply="Dieser satz ist richtig.")
    reply = await rig.agent.write(
        Commission(Brief("acme", Kind.CORRECT, "de", text="Diser satz ist richtig"), _SAMPLING, request_id="r1")
    )
    assert reply.edits == (Edit(0, 5, "Dieser", Reason.SPELLING), Edit(22, 22, ".", Reason.PUNCTUATION))
    assert reply.alternatives is None


def _suggestion(num_alternatives: int) -> Brief:
    return Brief("acme", Kind.SUGGEST, "de", instructions="Brot", num_alternatives=num_alternatives)


async def test_a_list_of_enough_alternatives_takes_one_generation() -> None:
    """They are parsed out of the reply, which is served as it is."""
    text = "1. Ein satz.\n2. Noch ein satz.\n3. ein satz"
    rig = _Rig(engine=(engine := FakeEngine(lambda request: text)))
    reply = await rig.agent.write(Commission(_suggestion(2), _SAMPLING, request_id="r1"))
    assert (reply.alternatives, reply.text) == (("Ein satz.", "Noch ein satz."), text)
    assert len(engine.requests) == 1


async def test_missing_alternatives_are_sampled_with_other_seeds() -> None:
    """One more generation for each that is missing; repetitions are left out, so there may be fewer than asked for.
    Text and verdict are about all that are served, and the episode holds every completion."""
    engine = FakeEngine(_scripted("Ein satz.", "Noch ein satz hier.", "ein satz"))
    rig = _Rig(engine=engine)
    reply = await rig.agent.write(Commission(_suggestion(3), _SAMPLING, request_id="r1"))
    assert reply.alternatives == ("Ein satz.", "Noch ein satz hier.")
    assert reply.text == "Ein satz.\nNoch ein satz hier."
    assert [request.sampling.seed for request in engine.requests] == [1, 2, 3]
    assert len(rig.memory.episodes[0].completions) == 3
    # 9 + 19 + 8 characters and a stop token each.
    assert reply.completion_tokens == 9 + 19 + 8 + 3


async def test_greedy_sampling_is_not_repeated() -> None:
    """A second greedy generation would say the same."""
    engine = FakeEngine(lambda request: "Ein satz.")
    reply = await _Rig(engine=engine).agent.write(
        Commission(_suggestion(3), Sampling(50, temperature=0.0), request_id="r1")
    )
    assert (reply.alternatives, len(engine.requests)) == (("Ein satz.",), 1)


def _numbered(*texts: str) -> Callable[[GenerateRequest], str]:
    """By the seed, which begins at 0."""
    return lambda request: texts[request.sampling.seed or 0]


_SCHEMA = '{"type":"object","properties":{"titel":{"type":"string"}},"required":["titel"]}'


async def test_a_structured_reply_is_read_and_its_strings_are_judged() -> None:
    """English keys do not count against German values; spans are those of the JSON text."""
    text = '{"titel": "Ein satz auf Deutsch", "sentence": 1}'
    rig = _Rig(reply=text)
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", schema=_SCHEMA)
    reply = await rig.agent.write(Commission(brief, Sampling(100, schema=_SCHEMA), request_id="r1"))
    assert reply.data == {"titel": "Ein satz auf Deutsch", "sentence": 1}
    assert reply.verdict.verdict is Verdict.PASS
    assert [text[found.start : found.end] for found in reply.verdict.sentences] == ["Ein satz auf Deutsch"]


async def test_a_reply_that_breaks_its_schema_is_neither_served_nor_kept() -> None:
    """Cut off after ten tokens it is no JSON."""
    rig = _Rig(reply='{"titel": "Ein satz"}')
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", schema=_SCHEMA)
    with pytest.raises(SchemaNotMet):
        await rig.agent.write(Commission(brief, Sampling(10, schema=_SCHEMA), request_id="r1"))
    assert rig.memory.episodes == ()


async def test_of_several_structured_replies_those_that_fit_are_served() -> None:
    """The best one is cut off, so the second is served, and the third is the only alternative although two were asked
    for. All are journalled."""
    cut, second, third = '{"titel": "Ein langer satz mit mehr', '{"titel": "Ein satz mehr"}', '{"titel": "Ein satz"}'
    rig = _Rig(engine=FakeEngine(_numbered(third, cut, second)))
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", schema=_SCHEMA)
    sampling = Sampling(100, seed=0, schema=_SCHEMA)
    reply = await rig.agent.write(
        Commission(brief, sampling, request_id="r1", alternatives=Alternatives(n=3, best_of=3))
    )
    assert (reply.text, reply.data, reply.alternatives) == (second, {"titel": "Ein satz mehr"}, (third,))
    (episode,) = rig.memory.episodes
    assert (episode.served, len(episode.completions)) == (2, 3)


async def test_a_correction_has_the_edits_of_the_best_one() -> None:
    """The longer of two is the better one here, and what it changed is told."""
    rig = _Rig(engine=FakeEngine(_numbered("Dieser satz", "Dieser satz ist")))
    brief = Brief("acme", Kind.CORRECT, "de", text="Diser satz ist")
    reply = await rig.agent.write(
        Commission(brief, Sampling(100, seed=0), request_id="r1", alternatives=Alternatives(n=2, best_of=2))
    )
    assert (reply.text, reply.alternatives) == ("Dieser satz ist", ("Dieser satz",))
    assert reply.edits == (Edit(0, 5, "Dieser", Reason.SPELLING),)


async def test_a_listener_of_several_texts_hears_the_first() -> None:
    """Which is the one that is served."""
    heard: list[Delta] = []
    rig = _Rig(engine=FakeEngine(_numbered("Ein satz.", "Noch ein satz.")))
    reply = await rig.agent.write(
        Commission(
            _BRIEF, Sampling(100, seed=0), request_id="r1", alternatives=Alternatives(n=2), listener=heard.append
        )
    )
    assert "".join(delta.text for delta in heard) == reply.text == "Ein satz."
    assert reply.alternatives == ("Noch ein satz.",)


async def test_a_listener_hears_the_reply_word_by_word() -> None:
    """The deltas together are the text of the first completion."""
    heard: list[Delta] = []
    reply = await _Rig().agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1", listener=heard.append))
    assert "".join(delta.text for delta in heard) == reply.text
    assert len(heard) == len(_REPLY.split())
