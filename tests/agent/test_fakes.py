"""The shipped fakes keep the contracts of their ports."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.errors import EngineDead
from agent.fakes import REPLY_ID, SYSTEM_ID, USER_ID, CharEncoder, FakeEngine, FakeRanker, MemoryJournal
from agent.ports import ClaimingJournal, Engine, GenerateRequest, PromptEncoder, Ranker
from agent.verdict import LanguageVerdict, Verdict


def _episode(number: int, language: str = "de", tenant: str = "acme") -> Episode:
    completion = Completion("a", (number,), (97,), (-1.0,), Sampling(8), FinishReason.STOP, VersionSpan(0, 0))
    return Episode(
        f"{language}-{tenant}-{number}",
        datetime(2026, 1, 1, tzinfo=UTC),
        Brief(tenant, Kind.CREATE, language, instructions="x"),
        PromptRef("v1", "create", language),
        (completion,),
        0,
        LanguageVerdict(language, Verdict.UNDETERMINED, None, ()),
    )


def test_fakes_are_their_ports() -> None:
    """Type checkers hold the fakes to the Protocols through these assignments."""
    engine: Engine = FakeEngine(lambda request: "")
    encoder: PromptEncoder = CharEncoder()
    journal: ClaimingJournal = MemoryJournal()
    ranker: Ranker = FakeRanker()
    assert all((engine, encoder, journal, ranker))


def test_no_text_can_spell_a_control_token() -> None:
    """Ids of control tokens lie above every code point, so they appear only where the encoder puts them."""
    ids = CharEncoder().encode("a\U0010ffff", "b")
    assert ids == (SYSTEM_ID, ord("a"), 0x10FFFF, USER_ID, ord("b"), REPLY_ID)
    assert CharEncoder.split(ids) == ("a\U0010ffff", "b")


async def test_the_engine_answers_with_its_version_or_the_one_asked_for() -> None:
    """A request without a version gets the active one."""
    engine = FakeEngine(lambda request: "hi", version=4)
    request = GenerateRequest("r", (1, 2), Sampling(8))
    assert (await engine.generate(request)).versions == VersionSpan(4, 4)
    assert (await engine.generate(replace(request, policy_version=2))).versions == VersionSpan(2, 2)
    assert [asked.policy_version for asked in engine.requests] == [None, 2]


async def test_the_engine_cuts_at_max_tokens() -> None:
    """Two characters and the stop token need three tokens."""
    engine = FakeEngine(lambda request: "hi")
    whole = await engine.generate(GenerateRequest("r", (), Sampling(3)))
    cut = await engine.generate(GenerateRequest("r", (), Sampling(2)))
    assert (whole.text, whole.finish_reason, len(whole.token_ids)) == ("hi", FinishReason.STOP, 3)
    assert (cut.text, cut.finish_reason, len(cut.token_ids)) == ("hi", FinishReason.LENGTH, 2)


async def test_the_engine_fails_on_demand() -> None:
    """While a failure is set it is raised."""
    engine = FakeEngine(lambda request: "hi")
    engine.failure = EngineDead("gone")
    with pytest.raises(EngineDead):
        await engine.generate(GenerateRequest("r", (), Sampling(3)))


async def test_claims_are_balanced_by_language_then_tenant() -> None:
    """Of many German and few French episodes of two tenants, each language and tenant gets its turn."""
    episodes = [_episode(n, "de", "big") for n in range(10)] + [_episode(10, "de", "small"), _episode(11, "fr", "big")]
    claims = await MemoryJournal(episodes).claim(("de", "fr"), 4, seed=0)
    # Turns: de, fr, de, de (fr has one only); within de: big, small, big.
    names = [(claim.episode.brief.language, claim.episode.brief.tenant) for claim in claims]
    assert names == [("de", "big"), ("fr", "big"), ("de", "small"), ("de", "big")]


async def test_fresh_episodes_go_first_then_settled_ones_return() -> None:
    """A claimed episode is not handed out twice; a settled one comes again when nothing is fresh."""
    journal = MemoryJournal([_episode(1), _episode(2)])
    first = await journal.claim(("de",), 1, seed=0)
    second = await journal.claim(("de",), 5, seed=0)
    assert [claim.episode.id for claim in first + second] == ["de-acme-1", "de-acme-2"]
    assert await journal.claim(("de",), 5, seed=0) == []
    await journal.settle(first)
    assert [claim.episode.id for claim in await journal.claim(("de",), 5, seed=0)] == ["de-acme-1"]


async def test_unsettled_claims_return_after_a_crash() -> None:
    """A restart hands out again what was claimed and never settled."""
    journal = MemoryJournal([_episode(1)])
    await journal.claim(("de",), 1, seed=0)
    journal.restart()
    assert len(await journal.claim(("de",), 1, seed=0)) == 1


async def test_the_held_out_split_is_never_claimed() -> None:
    """Training and held-out episodes are disjoint, together all, and the split is the same on every call."""
    episodes = [_episode(n) for n in range(50)]
    journal = MemoryJournal(episodes, held_out_share=0.3)
    held_out = await journal.held_out(("de",), 50)
    claimed = [claim.episode for claim in await journal.claim(("de",), 50, seed=0)]
    assert {episode.id for episode in held_out} | {episode.id for episode in claimed} == {e.id for e in episodes}
    assert len(held_out) + len(claimed) == 50
    assert 5 <= len(held_out) <= 25
    assert await journal.held_out(("de",), 50) == held_out
