"""Repairs of replies in a wrong language, through the content agent on the shipped fakes."""

import asyncio
from collections.abc import Mapping

import pytest

from agent.alternatives import Alternatives
from agent.brief import Brief, Kind
from agent.commission import Commission
from agent.completion import Completion, Sampling
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.episode import Reply
from agent.errors import EngineError
from agent.fakes import CharEncoder, FakeEngine, FakeRanker, FixedDetector, MemoryJournal
from agent.ports import Delta, GenerateRequest, Priority
from agent.prompt import PromptLibrary
from agent.repair import Repair, RepairAttempt, RepairMethod, RepairMode, RepairOutcome
from agent.repairer import Repairer
from agent.rewriting import SentenceWriter
from agent.texts import other_texts, served_text
from agent.verdict import Verdict
from agent.writer import ContentAgent, TenantLanguages

_GOOD = "Dieser satz ist auf Deutsch geschrieben."
_ALSO_GOOD = "Auch der zweite satz ist hier deutsch."
_WRONG = "This sentence is an English one indeed."
_MIXED = f"{_GOOD} {_WRONG} {_ALSO_GOOD}"
_REWRITTEN = "Und jetzt ist der satz wirklich deutsch."
_SAMPLING = Sampling(max_tokens=300, temperature=0.7, seed=1)
_PROMPTS = PromptLibrary.load()
_BRIEF = Brief("acme", Kind.CREATE, "de", instructions="Brot")


class _Engine(FakeEngine):
    """Says by the request's suffix what it is told to: "" is the first sample. An unknown suffix fails."""

    def __init__(self, texts: Mapping[str, str], *, slow: str | None = None, pause_s: float = 30.0) -> None:
        super().__init__(self._say)
        self._texts = texts
        self._slow, self._wait_s = slow, pause_s

    async def generate(self, request: GenerateRequest) -> Completion:
        if self._slow is not None and request.request_id.endswith(self._slow):
            await asyncio.sleep(self._wait_s)
        return await super().generate(request)

    def _say(self, request: GenerateRequest) -> str:
        suffix = request.request_id.removeprefix("r1").removeprefix("-")
        if suffix not in self._texts:
            raise EngineError(f"nothing to say for {request.request_id}")
        return self._texts[suffix]


class _Rig:
    def __init__(self, engine: FakeEngine, *, mode: RepairMode = RepairMode.AUTO, budget_s: float = 5.0) -> None:
        self.engine, self.journal = engine, MemoryJournal()
        encoder, prompts = CharEncoder(), _PROMPTS
        self.agent = ContentAgent(
            engine,
            encoder,
            prompts,
            LanguageContract(FixedDetector({"satz": "de", "sentence": "en"})),
            FakeRanker(),
            self.journal,
            TenantLanguages([TenantSettings(id="acme", languages={"de": LanguageSettings(address="formal")})]),
            lambda tenant, error: None,
            Repairer(engine, SentenceWriter(engine, encoder, prompts), mode, budget_s),
        )

    async def write(self, brief: Brief = _BRIEF, sampling: Sampling = _SAMPLING, **options: object) -> Reply:
        return await self.agent.write(Commission(brief, sampling, request_id="r1", **options))  # type: ignore[arg-type]


def _attempts(repair: Repair | None) -> list[tuple[str, str]]:
    return [] if repair is None else [(item.method.value, item.outcome.value) for item in repair.attempts]


async def test_a_wrong_sentence_is_written_again_and_put_back() -> None:
    """The others keep their places; the reply and the new sentence say that they were repaired."""
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": f"„{_REWRITTEN}“"}))
    reply = await rig.write()
    assert reply.text == f"{_GOOD} {_REWRITTEN} {_ALSO_GOOD}"
    assert reply.verdict.verdict is Verdict.REPAIRED
    assert [(reply.text[s.start : s.end], s.verdict) for s in reply.verdict.sentences] == [
        (_GOOD, Verdict.PASS),
        (_REWRITTEN, Verdict.REPAIRED),
        (_ALSO_GOOD, Verdict.PASS),
    ]
    assert _attempts(reply.repair) == [("sentence", "repaired")]


async def test_a_sentence_is_asked_for_greedily_as_a_translation_at_live_priority() -> None:
    """By the product's template of the language, in the tenant's register, within the request's tokens."""
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": _REWRITTEN}))
    await rig.write()
    request = rig.engine.requests[1]
    user = CharEncoder.split(request.prompt_token_ids)[1]
    assert user.startswith("Übersetze diesen Text ins Deutsche.")
    assert user.endswith(f"{_WRONG}\nSprich die Leser mit „Sie“ an.")
    # 39 characters: 32 + 2 * 39.
    assert (request.sampling.max_tokens, request.sampling.temperature) == (110, 0.0)
    assert (request.priority, request.cache_scope) == (Priority.LIVE, "acme")


async def test_a_text_with_a_sentence_put_in_is_no_sample() -> None:
    """The journal keeps what was sampled, what was served beside it, and says that the one is not the other."""
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": _REWRITTEN}))
    reply = await rig.write()
    (episode,) = rig.journal.episodes
    assert [completion.text for completion in episode.completions] == [_MIXED]
    assert (served_text(episode), episode.served_as_sampled) == (reply.text, False)
    assert episode.verdict == reply.verdict
    # One token per character and a stop token, of both.
    assert reply.completion_tokens == len(_MIXED) + 1 + len(_REWRITTEN) + 1
    assert episode.repair is not None
    assert episode.repair.num_tokens == len(_REWRITTEN) + 1


async def test_a_reply_that_is_mostly_wrong_is_sampled_once_more() -> None:
    """From the same prompt with the next seed: both are samples of the policy, and the second is served."""
    rig = _Rig(_Engine({"": _WRONG, "retry": _GOOD}))
    reply = await rig.write()
    assert (reply.text, reply.verdict.verdict) == (_GOOD, Verdict.REPAIRED)
    assert _attempts(reply.repair) == [("retry", "repaired")]
    first, second = rig.engine.requests
    assert (second.request_id, second.sampling.seed) == ("r1-retry", 2)
    assert second.prompt_token_ids == first.prompt_token_ids
    (episode,) = rig.journal.episodes
    assert [completion.text for completion in episode.completions] == [_WRONG, _GOOD]
    assert (episode.served, served_text(episode), episode.served_as_sampled) == (1, _GOOD, True)


async def test_what_does_not_help_changes_nothing_and_is_told() -> None:
    """A sentence that stays English is not put in, a retry that is as wrong is not served; the reply fails. Both
    samples of the prompt are kept."""
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": _WRONG.replace("one", "lot"), "retry": _WRONG}))
    reply = await rig.write()
    assert (reply.text, reply.verdict.verdict) == (_MIXED, Verdict.FAILED)
    assert _attempts(reply.repair) == [("sentence", "no_better"), ("retry", "no_better")]
    (episode,) = rig.journal.episodes
    assert (len(episode.completions), episode.served, episode.served_as_sampled) == (2, 0, True)


async def test_a_better_reply_is_served_although_it_still_fails() -> None:
    """Of two wrong sentences one is written again; the retry is worse."""
    text = f"{_GOOD} {_WRONG} {_ALSO_GOOD} {_WRONG}"
    rig = _Rig(_Engine({"": text, "sentence-0": _REWRITTEN, "sentence-1": "", "retry": _WRONG}))
    reply = await rig.write()
    assert reply.text == f"{_GOOD} {_REWRITTEN} {_ALSO_GOOD} {_WRONG}"
    assert reply.verdict.verdict is Verdict.FAILED
    assert _attempts(reply.repair) == [("sentence", "better"), ("retry", "no_better")]


async def test_a_retry_that_is_mostly_right_is_mended_too() -> None:
    """Two attempts, one of each kind; what is served is no sample then."""
    rig = _Rig(_Engine({"": _WRONG, "retry": _MIXED, "sentence-0": _REWRITTEN}))
    reply = await rig.write()
    assert reply.text == f"{_GOOD} {_REWRITTEN} {_ALSO_GOOD}"
    assert _attempts(reply.repair) == [("retry", "better"), ("sentence", "repaired")]
    (episode,) = rig.journal.episodes
    assert (episode.served, episode.served_as_sampled) == (1, False)


async def test_a_sibling_that_passes_is_served_without_another_generation() -> None:
    """Of three samples the first that passes takes the first place; the others are alternatives."""
    rig = _Rig(_Engine({"0": _WRONG, "1": _GOOD, "2": _ALSO_GOOD}))
    reply = await rig.write(alternatives=Alternatives(n=3))
    assert (reply.text, reply.alternatives) == (_GOOD, (_WRONG, _ALSO_GOOD))
    assert (reply.verdict.verdict, _attempts(reply.repair)) == (Verdict.REPAIRED, [("sibling", "repaired")])
    assert len(rig.engine.requests) == 3
    assert rig.journal.episodes[0].served == 1


@pytest.mark.parametrize(
    ("mode", "first", "expected"),
    [
        (RepairMode.OFF, _MIXED, []),
        (RepairMode.SENTENCE, _MIXED, [("sentence", "repaired")]),
        (RepairMode.RETRY, _MIXED, [("retry", "repaired")]),
        (RepairMode.AUTO, _MIXED, [("sentence", "repaired")]),
        (RepairMode.AUTO, _GOOD, []),
        (RepairMode.AUTO, " ".join([_WRONG] * 5), [("retry", "repaired")]),
        (RepairMode.SENTENCE, " ".join([_WRONG] * 5), []),
    ],
)
async def test_the_mode_says_what_may_be_tried(mode: RepairMode, first: str, expected: list[tuple[str, str]]) -> None:
    """Five wrong sentences are too many to be written again one by one."""
    rig = _Rig(_Engine({"": first, "sentence-0": _REWRITTEN, "retry": _GOOD}), mode=mode)
    assert _attempts((await rig.write()).repair) == expected


async def test_greedy_replies_are_not_sampled_again() -> None:
    """The second would be the first; a sentence can be written again all the same."""
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": _REWRITTEN}))
    reply = await rig.write(sampling=Sampling(300, temperature=0.0))
    assert _attempts(reply.repair) == [("sentence", "repaired")]
    alone = _Rig(_Engine({"": _MIXED}), mode=RepairMode.RETRY)
    assert (await alone.write(sampling=Sampling(300, temperature=0.0))).repair is None


async def test_what_is_heard_is_not_repaired() -> None:
    """A stream has told its text already: the reply fails, and nothing more is sampled."""
    heard: list[Delta] = []
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": _REWRITTEN}))
    reply = await rig.write(listener=heard.append)
    assert (reply.verdict.verdict, reply.repair, len(rig.engine.requests)) == (Verdict.FAILED, None, 1)


async def test_a_correction_is_sampled_again_but_its_sentences_are_not_rewritten() -> None:
    """It must keep its caller's words; and where those are in another language, so is the correction, rightly."""
    german = Brief("acme", Kind.CORRECT, "de", text=f"{_GOOD} {_ALSO_GOOD}")
    rig = _Rig(_Engine({"": _MIXED, "retry": _GOOD}))
    reply = await rig.write(german)
    assert (reply.text, _attempts(reply.repair)) == (_GOOD, [("retry", "repaired")])
    assert reply.edits
    english = Brief("acme", Kind.CORRECT, "de", text=_WRONG)
    untouched = _Rig(_Engine({"": _WRONG}))
    assert (await untouched.write(english)).repair is None


async def test_a_structured_reply_is_sampled_again() -> None:
    """A retry that does not fit the schema is no better."""
    schema = '{"type":"object","properties":{"titel":{"type":"string"}},"required":["titel"]}'
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", schema=schema)
    sampling = Sampling(300, schema=schema)
    wrong, right = f'{{"titel": "{_WRONG}"}}', f'{{"titel": "{_GOOD}"}}'
    reply = await _Rig(_Engine({"": wrong, "retry": right})).write(brief, sampling)
    assert (reply.data, reply.verdict.verdict) == ({"titel": _GOOD}, Verdict.REPAIRED)
    unfit = await _Rig(_Engine({"": wrong, "retry": _GOOD})).write(brief, sampling)
    assert (unfit.data, _attempts(unfit.repair)) == ({"titel": _WRONG}, [("retry", "no_better")])


async def test_suggestions_are_sampled_again_as_a_whole() -> None:
    """The alternatives are those of the new reply."""
    brief = Brief("acme", Kind.SUGGEST, "de", instructions="Brot", num_alternatives=2)
    first, second = f"1. {_WRONG}\n2. {_GOOD}", f"1. {_GOOD}\n2. {_ALSO_GOOD}"
    rig = _Rig(_Engine({"": first, "retry": second}))
    reply = await rig.write(brief)
    assert (reply.alternatives, reply.text) == ((_GOOD, _ALSO_GOOD), second)
    assert reply.verdict.verdict is Verdict.REPAIRED
    (episode,) = rig.journal.episodes
    assert (served_text(episode), other_texts(episode)) == (second, reply.alternatives)


async def test_suggestions_that_a_retry_did_not_mend_are_what_their_reader_saw() -> None:
    """The retry is kept as a sample, and is no part of the texts."""
    brief = Brief("acme", Kind.SUGGEST, "de", instructions="Brot", num_alternatives=2)
    first = f"1. {_WRONG}\n2. {_GOOD}"
    rig = _Rig(_Engine({"": first, "retry": f"1. {_WRONG}\n2. {_WRONG.replace('one', 'lot')} Indeed so."}))
    reply = await rig.write(brief)
    (episode,) = rig.journal.episodes
    assert len(episode.completions) == 2
    assert (served_text(episode), other_texts(episode)) == (reply.text, reply.alternatives) == (first, (_WRONG, _GOOD))


async def test_a_failure_of_the_engine_does_not_reach_the_caller() -> None:
    """The reply is there: it is served, and fails its contract."""
    reply = await _Rig(_Engine({"": _MIXED})).write()
    assert (reply.text, reply.verdict.verdict) == (_MIXED, Verdict.FAILED)
    assert _attempts(reply.repair) == [("sentence", "error"), ("retry", "error")]


async def test_a_repair_ends_with_its_budget() -> None:
    """What takes longer is cancelled, and what cannot end in time is not begun."""
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": _REWRITTEN}, slow="sentence-0"), budget_s=0.05)
    reply = await asyncio.wait_for(rig.write(), 5)
    assert (reply.text, _attempts(reply.repair)) == (_MIXED, [("sentence", "timed_out"), ("retry", "timed_out")])
    assert [request.request_id for request in rig.engine.requests] == ["r1"]


async def test_a_caller_does_not_wait_for_a_repair_longer_than_it_is_held() -> None:
    """The first reply took 0.1 s of a wait of 0.15 s: another one like it would come too late."""
    rig = _Rig(_Engine({"": _WRONG, "retry": _GOOD}, slow="r1", pause_s=0.1), mode=RepairMode.RETRY)
    assert _attempts((await rig.write(wait_s=0.15)).repair) == [("retry", "timed_out")]
    assert _attempts((await rig.write(wait_s=30.0)).repair) == [("retry", "repaired")]


@pytest.mark.parametrize(
    "unfit",
    ["", "...", "Zwei\nZeilen", _WRONG, _WRONG.upper(), "satz " * 60],
    ids=["empty", "no letter", "two lines", "the same", "the same in capitals", "too long"],
)
async def test_a_sentence_that_does_not_fit_is_not_put_in(unfit: str) -> None:
    """The reply stays as it was."""
    rig = _Rig(_Engine({"": _MIXED, "sentence-0": unfit}), mode=RepairMode.SENTENCE)
    reply = await rig.write()
    assert (reply.text, _attempts(reply.repair)) == (_MIXED, [("sentence", "no_better")])


async def test_what_a_tenant_lets_stand_is_not_repaired() -> None:
    """34 of 98 letters are English, 35 %: with an allowance of 40 % the reply passes."""
    engine = _Engine({"": _MIXED})
    contract = LanguageContract(FixedDetector({"satz": "de", "sentence": "en"}))
    settings = LanguageSettings(foreign_share=0.4, foreign_languages=("en",))
    agent = ContentAgent(
        engine,
        CharEncoder(),
        _PROMPTS,
        contract,
        FakeRanker(),
        MemoryJournal(),
        TenantLanguages([TenantSettings(id="acme", languages={"de": settings})]),
        lambda tenant, error: None,
    )
    reply = await agent.write(Commission(_BRIEF, _SAMPLING, request_id="r1"))
    assert (reply.verdict.verdict, reply.repair) == (Verdict.PASS, None)
    assert [sentence.language for sentence in reply.verdict.sentences] == ["de", "en", "de"]


def test_the_record_holds_attempts_in_order() -> None:
    """A repair that put in nothing has no text of its own."""
    repair = Repair((RepairAttempt(RepairMethod.RETRY, RepairOutcome.BETTER),))
    assert (repair.text, repair.num_tokens) == (None, 0)
