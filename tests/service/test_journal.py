"""The journal on real servers: what is stored, split, claimed, handed out again and settled."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.allowance import NOTHING, Allowance
from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.errors import StoreError
from agent.ports import Claim, ClaimingJournal
from agent.repair import Repair, RepairAttempt, RepairMethod, RepairOutcome
from agent.selection import Selection
from agent.verdict import LanguageVerdict, SentenceVerdict, Verdict
from service.config import StoreConfig
from service.journal import RedisJournal, Split, split_of
from service.store import Store, open_store
from service.stored_record import RecordCodec

ALL_TRAIN = StoreConfig(held_out_share=0.0)
MOSTLY_HELD = StoreConfig(held_out_share=0.999999)


def episode(
    name: str,
    language: str = "pl",
    tenant: str = "acme",
    instructions: str | None = None,
    end_user: str | None = None,
) -> Episode:
    """An episode whose every field differs from its default; `name` is its id and, unless given, its prompt."""
    completion = Completion(
        text="Zażółć\ngęślą 🙂",
        prompt_token_ids=tuple(map(ord, instructions or name)),
        token_ids=(7, 8),
        logprobs=(-0.5, -1.25),
        sampling=Sampling(max_tokens=16, temperature=0.7, top_p=0.9, seed=5, stop=("\n\n",)),
        finish_reason=FinishReason.STOP,
        versions=VersionSpan(2, 3),
    )
    return Episode(
        id=name,
        created_at=datetime(2026, 11, 22, 12, 30, 15, 123456, tzinfo=UTC),
        brief=Brief(
            tenant=tenant,
            kind=Kind.CREATE,
            language=language,
            instructions=instructions or name,
            keywords=("żółw",),
            min_words=3,
            end_user=end_user,
            brand_terms=("Coloq",),
            glossary=(("bell", "dzwonek"),),
            allowance=Allowance(0.2, ("en",)),
        ),
        prompt=PromptRef("v1", "create", language),
        completions=(completion, replace(completion, text="druga")),
        served=1,
        verdict=LanguageVerdict(
            "pl", Verdict.REPAIRED, 1.0, (SentenceVerdict(0, 6, Verdict.REPAIRED, "pl", 0.99),), True
        ),
        repair=Repair((RepairAttempt(RepairMethod.SENTENCE, RepairOutcome.REPAIRED),), "trzecia", 9),
    )


async def fill(journal: RedisJournal, episodes: Sequence[Episode]) -> None:
    for item in episodes:
        await journal.append(item)


def ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.episode.id for claim in claims]


async def test_an_append_is_cheaper_than_making_a_codec(store: Store) -> None:
    """Every request appends, so none may build pydantic's validators anew: 6 ms of the event loop, when it was so."""
    journal = RedisJournal(store, ALL_TRAIN)
    episodes = [episode(f"e{number}") for number in range(50)]
    began_s = time.process_time()
    await fill(journal, episodes)
    appended_s = time.process_time() - began_s
    began_s = time.process_time()
    for _ in episodes:
        RecordCodec(Episode)
    assert appended_s < time.process_time() - began_s


def test_an_episode_from_before_repairs_can_be_read() -> None:
    """What was not recorded then has its default: nothing repaired, no glossary, nothing let stand."""
    codec = RecordCodec(Episode)
    old = json.loads(codec.encode(episode("old")))
    del old["repair"], old["brief"]["glossary"], old["brief"]["allowance"], old["verdict"]["words_pass"]
    read = codec.decode(json.dumps(old))
    assert (read.repair, read.brief.glossary, read.brief.allowance) == (None, (), NOTHING)
    assert read.served_as_sampled


def test_journal_is_a_claiming_journal() -> None:
    """The journal has every method of the Protocol that the loop consumes."""

    def check(journal: RedisJournal) -> ClaimingJournal:
        return journal

    assert check.__annotations__["return"] is ClaimingJournal


async def test_who_looks_for_an_episode_waits_for_its_append(any_store: Store) -> None:
    """By any way of looking one up, while the store takes no write for a while; another episode is not waited for."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await journal.append(episode("r-1"))
    await any_store.redis.client_pause(400, all=False)
    append = asyncio.create_task(journal.append(episode("r-2")))
    await asyncio.sleep(0)
    assert await journal.known("acme", ["r-1"]) == ["r-1"]
    assert not append.done()
    found = asyncio.gather(journal.get("acme", "r-2"), journal.find("r-2"))
    assert await journal.known("acme", ["r-1", "r-2"]) == ["r-1", "r-2"]
    assert list(await found) == [episode("r-2"), episode("r-2")]


async def test_a_failed_append_holds_nobody_up(store: Store) -> None:
    """The lookup ends with the append, and finds nothing."""
    journal = RedisJournal(store, ALL_TRAIN)
    await store.redis.set("t:acme:journal:pl:train", "of another type")
    append = asyncio.create_task(journal.append(episode("r-1")))
    await asyncio.sleep(0)
    assert await journal.get("acme", "r-1") is None
    with pytest.raises(StoreError, match="the store could not take an episode"):
        await append


async def test_a_slow_store_leaves_connections_to_others(store: Store) -> None:
    """Appends take half of them at most, however many there are: a read is answered while all of them wait."""
    journal = RedisJournal(store, ALL_TRAIN)
    await store.redis.client_pause(600, all=False)
    appends = [asyncio.create_task(journal.append(episode(f"e{number}"))) for number in range(100)]
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(store.redis.get("nothing"), timeout=0.3) is None
    assert not any(append.done() for append in appends)
    await asyncio.gather(*appends)
    assert await journal.known("acme", ["e0", "e99"]) == ["e0", "e99"]


async def test_episode_comes_back_as_it_was(any_store: Store) -> None:
    """Text, token ids, log-probabilities, sampling, versions and verdict survive the store without a change."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await journal.append(episode("r-1"))
    assert await journal.get("acme", "r-1") == episode("r-1")
    assert [claim.episode for claim in await journal.claim(["pl"], 5, seed=0)] == [episode("r-1")]


async def test_episode_is_its_tenants_own(any_store: Store) -> None:
    """Another tenant cannot look up an episode, whatever id it asks for."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await journal.append(episode("r-1"))
    assert await journal.get("zeta", "r-1") is None
    assert await journal.get("acme", "r-2") is None


async def test_keys_begin_with_the_tenant(store: Store) -> None:
    """Everything of a tenant lies under its own prefix; the node's registry holds names only."""
    journal = RedisJournal(store, ALL_TRAIN)
    await journal.append(episode("r-1"))
    assert sorted(await store.redis.keys("*")) == [
        "node:journal:streams",
        "t:acme:journal:pl:train",
        "t:acme:journal:pl:train:index",
        "t:acme:journal:pl:train:prompts",
        "t:acme:journal:requests",
    ]
    assert await store.redis.smembers("node:journal:streams") == {"acme pl"}


async def test_same_request_is_stored_once(any_store: Store) -> None:
    """An append that is repeated after a timeout makes no second training sample."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode("r-1"), episode("r-1"), episode("r-2")])
    assert await journal.count() == {("acme", "pl", Split.TRAIN): 2, ("acme", "pl", Split.HELD): 0}


def test_split_follows_the_prompt_alone() -> None:
    """Kind, language, instructions and text choose the split; ids, tenants and limits do not."""
    brief = episode("r-1").brief
    shares = [split_of(replace(brief, instructions=f"prompt {n}"), 0.2) for n in range(1000)]
    # 1000 prompts at share 0.2: 200 expected, standard deviation sqrt(1000 * 0.2 * 0.8) = 12.6; four of them are 51.
    assert abs(Counter(shares)[Split.HELD] - 200) < 51
    for share in (0.1, 0.5, 0.9):
        assert split_of(brief, share) == split_of(replace(brief, tenant="zeta", max_words=9, keywords=()), share)
    assert split_of(brief, 0.0) is Split.TRAIN
    assert split_of(brief, 0.999999) is Split.HELD
    # Moving a word from one field to the next makes another prompt: over 64 pairs both splits agree with p = 2^-64.
    pairs = [(f"a{n}b", f"{n}a b") for n in range(64)]
    assert any(
        split_of(replace(brief, instructions=one, text="c"), 0.5) != split_of(replace(brief, instructions=other), 0.5)
        for one, other in pairs
    )


async def test_held_out_prompts_are_never_claimed(any_store: Store) -> None:
    """Training and held-out episodes do not meet: together they are all, and no prompt is on both sides."""
    journal = RedisJournal(any_store, StoreConfig(held_out_share=0.5))
    await fill(journal, [episode(f"r-{n}", instructions=f"prompt {n // 2}") for n in range(40)])
    claimed = {claim.episode.id for claim in await journal.claim(["pl"], 100, seed=0)}
    held = {item.brief.instructions for item in await journal.held_out(["pl"], 100)}
    trained = {f"prompt {int(name[2:]) // 2}" for name in claimed}
    assert trained | held == {f"prompt {n}" for n in range(20)}
    assert trained & held == set()


async def test_unread_episodes_go_first_and_are_handed_out_once(any_store: Store) -> None:
    """While there are unread episodes, oldest first, nothing comes twice."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"r-{n}") for n in range(6)])
    first = await journal.claim(["pl"], 4, seed=0)
    assert ids(first) == ["r-0", "r-1", "r-2", "r-3"]
    await journal.settle(first)
    second = await journal.claim(["pl"], 4, seed=0)
    assert ids(second)[:2] == ["r-4", "r-5"]
    assert len(set(ids(second))) == 4


async def test_settled_episodes_are_drawn_again_by_seed(any_store: Store) -> None:
    """When unread ones run out, a seed chooses which come again: the same seed the same, another seed others."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"r-{n}") for n in range(30)])
    await journal.settle(await journal.claim(["pl"], 30, seed=0))
    drawn = [ids(await journal.claim(["pl"], 8, seed=seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert all(len(set(names)) == 8 for names in drawn)


async def test_a_prompt_comes_once_in_a_run_until_all_others_have(any_store: Store) -> None:
    """Logged 1,000 times before two others and once after them: three claims hand out three prompts, and then they
    come again, once each before any comes twice."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"r-{n}", instructions="the same") for n in range(1000)])
    await fill(journal, [episode("one"), episode("two"), episode("r-1000", instructions="the same")])
    tally: Counter[str] = Counter()
    prompts: list[str] = []
    passed_over: Counter[str] = Counter()
    for step in range(9):
        selection = Selection(tally=tally)
        claims = await journal.claim(["pl"], 1, seed=step, selection=selection)
        await journal.settle(claims)
        prompts += [claim.episode.brief.instructions for claim in claims]
        passed_over.update(selection.passed_over)
    assert prompts[0] == "the same"
    assert sorted(prompts[:3]) == sorted(prompts[3:6]) == sorted(prompts[6:]) == ["one", "the same", "two"]
    # 999 and 1 of the same, and the two others: they were drawn by prompt before they had been read.
    assert passed_over == {"duplicate": 1002}


async def test_a_run_finds_the_last_prompt_that_it_has_not_claimed(store: Store) -> None:
    """Of forty prompts, one a step: forty steps claim each of them once, though fewer and fewer are left."""
    journal = RedisJournal(store, ALL_TRAIN)
    await fill(journal, [episode(f"r-{n}") for n in range(40)])
    await journal.settle(await journal.claim(["pl"], 40, seed=0))
    tally: Counter[str] = Counter()
    drawn: list[str] = []
    for step in range(40):
        claims = await journal.claim(["pl"], 1, seed=step, selection=Selection(tally=tally))
        await journal.settle(claims)
        drawn += ids(claims)
    assert sorted(drawn) == sorted(f"r-{n}" for n in range(40))


async def test_a_claim_says_whether_an_episode_may_have_been_used(any_store: Store) -> None:
    """Fresh ones were not; a prompt that is drawn again comes with the newest episode that has it."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode("r-0", instructions="x"), episode("r-1", instructions="y")])
    fresh = await journal.claim(["pl"], 2, seed=0)
    await journal.settle(fresh)
    await journal.append(episode("r-2", instructions="x"))
    again = await journal.claim(["pl"], 2, seed=0)
    assert [(claim.episode.id, claim.again) for claim in fresh] == [("r-0", False), ("r-1", False)]
    assert [(claim.episode.id, claim.again) for claim in again] == [("r-2", False), ("r-1", True)]


async def test_looking_past_repetitions_ends(any_store: Store) -> None:
    """After 256 duplicates of one tenant and language a claim draws from the prompts, where each is once."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"r-{n}", instructions="the same") for n in range(300)])
    await journal.append(episode("other"))
    selection = Selection()
    claims = await journal.claim(["pl"], 2, seed=0, selection=selection)
    assert [(claim.episode.brief.instructions, claim.again) for claim in claims] == [
        ("the same", False),
        ("other", True),
    ]
    assert selection.passed_over == {"duplicate": 256}


async def test_tenants_and_end_users_are_capped(any_store: Store) -> None:
    """Two prompts of a tenant and one of an end user: u1's second is passed over for u2's, and then acme has enough."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"u1-{n}", end_user="u1") for n in range(3)])
    await fill(journal, [episode(f"u2-{n}", end_user="u2") for n in range(3)])
    await fill(journal, [episode(f"zeta-{n}", tenant="zeta") for n in range(9)])
    selection = Selection(per_tenant=2, per_end_user=1)
    claims = await journal.claim(["pl"], 4, seed=0, selection=selection)
    assert sorted(ids(claims)) == ["u1-0", "u2-0", "zeta-0", "zeta-1"]
    assert len(await journal.claim(["pl"], 4, seed=0, selection=selection)) == 0
    # u1-1 and u1-2 were passed over once each. In the second claim both tenants were asked in vain.
    assert selection.passed_over == {"end_user_capped": 2, "tenant_capped": 2}


async def test_nothing_is_drawn_of_a_tenant_that_is_not_served_any_more(store: Store) -> None:
    """Neither to train on nor to examine; what it wrote is there all the same, and drawn once it is served again."""
    served = {"acme"}
    for config, split in ((ALL_TRAIN, Split.TRAIN), (MOSTLY_HELD, Split.HELD)):
        journal = RedisJournal(store, config, is_served=lambda tenant: tenant in served)
        for tenant in ("acme", "gone"):
            await journal.append(episode(f"{tenant}-{split}", tenant=tenant))
    assert [claim.episode.id for claim in await journal.claim(["pl"], 4, seed=1)] == ["acme-train"]
    assert [held.id for held in await journal.held_out(["pl"], 4)] == ["acme-held"]
    found = await journal.find("gone-train")
    assert found is not None
    served.add("gone")
    assert "gone-train" in [claim.episode.id for claim in await journal.claim(["pl"], 4, seed=2)]
    assert {held.id for held in await journal.held_out(["pl"], 4)} == {"acme-held", "gone-held"}


async def test_what_was_passed_over_comes_again(any_store: Store) -> None:
    """The next step draws the prompts that the cap held back, one end user's as well as another's."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"r-{n}", end_user="u1") for n in range(4)])
    tally: Counter[str] = Counter()
    drawn: list[str] = []
    for step in range(4):
        claims = await journal.claim(["pl"], 2, seed=step, selection=Selection(per_end_user=1, tally=tally))
        await journal.settle(claims)
        drawn += ids(claims)
    assert sorted(drawn) == ["r-0", "r-1", "r-2", "r-3"]


async def test_prompts_go_with_the_episodes_that_have_them(any_store: Store) -> None:
    """Once every episode of a prompt is trimmed away, the prompt is not drawn any longer; a newer one keeps it."""
    journal = RedisJournal(any_store, StoreConfig(held_out_share=0.0, journal_retention=20))
    await fill(journal, [episode("old"), episode("kept")])
    await asyncio.sleep(0.002)  # entries of one millisecond are trimmed together
    await fill(journal, [episode(f"r-{n}", instructions=f"prompt {n}") for n in range(19)])
    await journal.append(episode("r-19", instructions="kept"))
    prompts = {claim.episode.brief.instructions for claim in await journal.claim(["pl"], 100, seed=0)}
    assert {"kept", *(f"prompt {n}" for n in range(19))} <= prompts
    assert await any_store.redis.zcard("t:acme:journal:pl:train:prompts") == 20


async def test_one_call_never_hands_out_an_episode_twice(any_store: Store) -> None:
    """A claim of more than there is returns each episode once, though it may draw settled ones again."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"r-{n}") for n in range(3)])
    await journal.settle(await journal.claim(["pl"], 1, seed=0))
    assert sorted(ids(await journal.claim(["pl"], 10, seed=0))) == ["r-0", "r-1", "r-2"]


async def test_claims_are_balanced_by_language_then_by_tenant(any_store: Store) -> None:
    """A language or tenant with much traffic gets no more than its turn; what a small one lacks goes to the others."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode(f"pl-{n}", "pl") for n in range(20)])
    await fill(journal, [episode(f"pl-zeta-{n}", "pl", tenant="zeta") for n in range(3)])
    await fill(journal, [episode(f"hi-{n}", "hi") for n in range(2)])
    claims = await journal.claim(["pl", "hi"], 4, seed=0)
    assert Counter((claim.episode.brief.language, claim.episode.brief.tenant) for claim in claims) == {
        ("hi", "acme"): 2,
        ("pl", "acme"): 1,
        ("pl", "zeta"): 1,
    }
    await journal.settle(claims)
    # 23 Polish episodes and 2 Hindi ones are all there is: 25, however many are asked for.
    assert len(await journal.claim([], 100, seed=0)) == 25


async def test_seed_chooses_which_languages_come_first(any_store: Store) -> None:
    """With fewer prompts than languages no language is always left out."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    languages = ["ar", "de", "en", "es", "fr", "hi"]
    await fill(journal, [episode(f"{code}-{n}", code) for code in languages for n in range(10)])
    first = {(await journal.claim(languages, 1, seed=seed))[0].episode.brief.language for seed in range(24)}
    assert len(first) > 3


async def test_only_the_wanted_languages_are_touched(any_store: Store) -> None:
    """A claim for one language leaves the others' unread episodes unread; an unknown language has none."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await fill(journal, [episode("pl-0", "pl"), episode("de-0", "de")])
    assert ids(await journal.claim(["pl"], 5, seed=0)) == ["pl-0"]
    assert await journal.claim(["sw"], 5, seed=0) == []
    assert ids(await journal.claim(["de"], 5, seed=0)) == ["de-0"]


async def test_claims_of_a_killed_process_are_handed_out_first(tmp_path: Path) -> None:
    """On the embedded store, what an earlier process claimed and never settled comes before unread episodes."""
    async with open_store(StoreConfig(), tmp_path) as store:
        journal = RedisJournal(store, ALL_TRAIN)
        await fill(journal, [episode(f"r-{n}") for n in range(5)])
        claims = await journal.claim(["pl"], 3, seed=0)
        await journal.settle(claims[:1])
    async with open_store(StoreConfig(), tmp_path) as store:
        again = RedisJournal(store, ALL_TRAIN)
        assert ids(await again.claim(["pl"], 1, seed=0)) == ["r-1"]
        assert ids(await again.claim(["pl"], 2, seed=0)) == ["r-2", "r-3"]


async def test_claims_left_for_long_are_handed_out_again(any_store: Store) -> None:
    """A claim that nobody settles comes back after a while, also to the process that made it; a settled one not."""
    journal = RedisJournal(any_store, ALL_TRAIN, abandoned_after_s=0.0)
    await fill(journal, [episode(f"r-{n}") for n in range(4)])
    claims = await journal.claim(["pl"], 2, seed=0)
    await journal.settle(claims[:1])
    assert ids(await journal.claim(["pl"], 2, seed=0)) == ["r-1", "r-2"]


async def test_another_nodes_fresh_claims_are_left_alone(redis_url: str, tmp_path: Path) -> None:
    """On a shared store a node takes nothing over that another node may still be working on."""
    async with open_store(StoreConfig(url=redis_url), tmp_path) as store:
        one, other = RedisJournal(store, ALL_TRAIN), RedisJournal(store, ALL_TRAIN)
        await fill(one, [episode(f"r-{n}") for n in range(4)])
        assert ids(await one.claim(["pl"], 2, seed=0)) == ["r-0", "r-1"]
        assert ids(await other.claim(["pl"], 2, seed=0)) == ["r-2", "r-3"]


async def test_settling_twice_or_nothing_is_harmless(any_store: Store) -> None:
    """Settling is idempotent."""
    journal = RedisJournal(any_store, ALL_TRAIN)
    await journal.append(episode("r-1"))
    claims = await journal.claim(["pl"], 1, seed=0)
    await journal.settle(claims)
    await journal.settle(claims)
    await journal.settle([])


async def test_held_out_is_the_same_on_every_call_and_balanced(any_store: Store) -> None:
    """The gate sees the newest held-out prompts, languages in turn, each prompt once, the same on every call."""
    journal = RedisJournal(any_store, MOSTLY_HELD)
    await fill(journal, [episode(f"pl-{n}", "pl", instructions=f"prompt {n % 4}") for n in range(8)])
    await fill(journal, [episode("de-0", "de")])
    held = await journal.held_out(["pl", "de"], 4)
    assert [item.id for item in held] == ["de-0", "pl-7", "pl-6", "pl-5"]
    assert await journal.held_out(["pl", "de"], 4) == held
    assert [item.id for item in await journal.held_out(["pl"], 10)] == ["pl-7", "pl-6", "pl-5", "pl-4"]
    assert await journal.claim(["pl", "de"], 10, seed=0) == []


async def test_only_so_many_episodes_are_kept(any_store: Store) -> None:
    """Past the retention the oldest episodes go; they are neither found nor drawn, and those kept are."""
    journal = RedisJournal(any_store, StoreConfig(held_out_share=0.0, journal_retention=150))
    await fill(journal, [episode(f"r-{n}") for n in range(400)])
    assert (await journal.count())["acme", "pl", Split.TRAIN] == 150
    assert await journal.get("acme", "r-0") is None
    assert await journal.get("acme", "r-250") == episode("r-250")
    # Streams are trimmed by whole nodes of 100 entries, so at most that many more than the retention are left.
    assert 150 <= await any_store.redis.xlen("t:acme:journal:pl:train") < 251


async def test_corrupt_entry_is_counted_and_skipped(any_store: Store) -> None:
    """An entry that cannot be read is counted and passed over, by claims, look-ups and the held-out split alike."""
    corrupt: list[str] = []
    journal = RedisJournal(any_store, ALL_TRAIN, on_corrupt=lambda: corrupt.append("one"))
    await journal.append(episode("r-0"))
    for payload in ("not json", '{"id": "r-x"}', b"\xff\xfe"):
        await any_store.redis.xadd("t:acme:journal:pl:train", {"id": "r-x", "episode": payload})
    await any_store.redis.xadd("t:acme:journal:pl:train", {"something": "else"})
    await journal.append(episode("r-1"))
    assert ids(await journal.claim(["pl"], 5, seed=0)) == ["r-0", "r-1"]
    assert len(corrupt) == 4
    assert await any_store.redis.xlen("t:acme:journal:pl:train") == 6
    # A prompt that is no valid brief (nothing asked for) is corrupt too, not an error of a caller.
    await any_store.redis.rename("t:acme:journal:pl:train", "t:acme:journal:pl:held")
    assert [item.id for item in await journal.held_out(["pl"], 5)] == ["r-1", "r-0"]


async def test_episodes_are_found_by_their_request_ids(any_store: Store) -> None:
    """Of any language and split, several at once or whosever it is; trimmed ones are unknown, and their index is gone.

    Two of each language are kept: of pl-0, pl-1 and pl-2 the first one goes.
    """
    journal = RedisJournal(any_store, StoreConfig(held_out_share=0.0, journal_retention=2))
    await fill(journal, [episode(f"pl-{n}") for n in range(3)])
    await fill(journal, [episode("de-0", "de"), episode("z-0", tenant="zeta")])
    assert await journal.known("acme", ["pl-0", "de-0", "z-0", "pl-2"]) == ["de-0", "pl-2"]
    assert list(await journal.get_many("acme", ["pl-1", "pl-0", "de-0"])) == ["pl-1", "de-0"]
    assert await journal.get_many("acme", []) == {}
    assert await journal.known("acme", []) == []
    assert await journal.find("z-0") == episode("z-0", tenant="zeta")
    assert await journal.find("pl-0") is None
    assert await any_store.redis.hkeys("t:acme:journal:requests") == ["pl-1", "pl-2", "de-0"]
    held = RedisJournal(any_store, MOSTLY_HELD)
    await held.append(episode("pl-9"))
    assert await held.get("acme", "pl-9") == episode("pl-9")


async def test_a_broken_episode_is_found_by_nobody_and_counted(store: Store) -> None:
    """The others of the same look-up are."""
    corrupt: list[None] = []
    journal = RedisJournal(store, ALL_TRAIN, on_corrupt=lambda: corrupt.append(None))
    await fill(journal, [episode("r-0"), episode("r-1")])
    broken = await store.redis.xadd("t:acme:journal:pl:train", {"id": "r-0", "episode": "{"}, id="99999999999999-0")
    assert broken == "99999999999999-0"
    await store.redis.hset("t:acme:journal:requests", "r-0", "pl train 99999999999999-0")
    assert list(await journal.get_many("acme", ["r-0", "r-1"])) == ["r-1"]
    assert len(corrupt) == 1


async def test_entry_that_was_trimmed_while_claimed_is_skipped(any_store: Store) -> None:
    """An abandoned claim whose episode is gone is passed over."""
    journal = RedisJournal(any_store, ALL_TRAIN, abandoned_after_s=0.0)
    await fill(journal, [episode("r-0"), episode("r-1")])
    (claim,) = await journal.claim(["pl"], 1, seed=0)
    await any_store.redis.xdel("t:acme:journal:pl:train", claim.handle.split(" ")[1])
    assert ids(await journal.claim(["pl"], 5, seed=0)) == ["r-1"]


async def test_lost_store_is_a_store_error(store: Store) -> None:
    """Every method of the journal fails as StoreError when the store is gone."""
    journal = RedisJournal(store, ALL_TRAIN)
    await journal.append(episode("r-0"))
    claims = await journal.claim(["pl"], 1, seed=0)
    assert store.embedded is not None
    await store.embedded.stop()
    with pytest.raises(StoreError, match="the store could not take an episode"):
        await journal.append(episode("r-1"))
    with pytest.raises(StoreError, match="hand out"):
        await journal.claim(["pl"], 1, seed=0)
    with pytest.raises(StoreError, match="settle"):
        await journal.settle(claims)
    with pytest.raises(StoreError, match="held-out"):
        await journal.held_out(["pl"], 1)
    with pytest.raises(StoreError, match="look up"):
        await journal.get("acme", "r-0")


async def test_claims_of_a_process_that_died_are_claimed_again_by_their_handles(store: Store) -> None:
    """In the order that is asked for, settled or not; the next draw does not have them, what is gone is left out."""
    first = RedisJournal(store, ALL_TRAIN)
    await fill(first, [episode(name) for name in ("a", "b", "c")])
    claims = await first.claim([], 2, seed=0)
    await first.settle(claims[:1])
    second = RedisJournal(store, ALL_TRAIN)
    handles = [claim.handle for claim in claims]
    again = await second.reclaim([handles[1], "t:acme:journal:pl:train 1-1", "t:acme:journal:xx:train 1-1", handles[0]])
    assert again == [claims[1], claims[0]]
    assert ids(await second.claim([], 1, seed=0)) == ["c"]
    pending = await store.redis.xpending("t:acme:journal:pl:train", "tuning")
    assert pending["pending"] == 2
    await second.settle(again)
    assert (await store.redis.xpending("t:acme:journal:pl:train", "tuning"))["pending"] == 1
