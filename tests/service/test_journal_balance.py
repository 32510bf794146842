"""Claims under caps, for any traffic: the journal on a real store and the one in memory, over traffic that hypothesis
makes up."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.fakes import MemoryJournal
from agent.ports import Claim, ClaimingJournal
from agent.selection import Selection
from agent.verdict import LanguageVerdict, Verdict
from service.config import StoreConfig
from service.journal import RedisJournal
from service.store import Store, open_store

LANGUAGES = ["de", "hi", "pl", "sw"]


class Logged(NamedTuple):
    """What of a request matters to claims."""

    tenant: str
    language: str
    prompt: int
    end_user: str | None

    def episode(self, number: int) -> Episode:
        prompt = (self.prompt, *map(ord, self.language))
        sampled = Completion("a", prompt, (97,), (-1.0,), Sampling(8), FinishReason.STOP, VersionSpan(0, 0))
        return Episode(
            f"r-{number}",
            datetime(2026, 1, 1, tzinfo=UTC),
            Brief(self.tenant, Kind.CREATE, self.language, instructions=f"{self.prompt}", end_user=self.end_user),
            PromptRef("v1", "create", self.language),
            (sampled,),
            0,
            LanguageVerdict(self.language, Verdict.UNDETERMINED, None, ()),
        )


@dataclass(frozen=True, slots=True)
class Caps:
    """Of a step."""

    num_prompts: int
    per_tenant: int | None
    per_end_user: int | None
    seed: int


REQUESTS = st.lists(
    st.builds(
        Logged,
        st.sampled_from(["acme", "zeta", "mono"]),
        st.sampled_from(LANGUAGES),
        st.integers(0, 5),
        st.sampled_from([None, "u1", "u2"]),
    ),
    max_size=24,
)
CAPS = st.builds(
    Caps,
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 4)),
    st.one_of(st.none(), st.integers(1, 3)),
    st.integers(0, 1000),
)


async def _steps(journal: ClaimingJournal, caps: Caps, num_steps: int = 3) -> list[list[Claim]]:
    """Claims of a run's steps."""
    tally: Counter[str] = Counter()
    steps = []
    for step in range(num_steps):
        selection = Selection(per_tenant=caps.per_tenant, per_end_user=caps.per_end_user, tally=tally)
        claims = await journal.claim(LANGUAGES, caps.num_prompts, seed=caps.seed + step, selection=selection)
        await journal.settle(claims)
        steps.append(claims)
    return steps


def _check(steps: Sequence[Sequence[Claim]], requests: Sequence[Logged], caps: Caps) -> None:
    """No cap is exceeded, no prompt comes twice in a step, and no language is left out that could have had a turn."""
    for claims in steps:
        briefs = [claim.episode.brief for claim in claims]
        tenants = Counter(brief.tenant for brief in briefs)
        people: Counter[tuple[str, str | None]] = Counter(
            (brief.tenant, brief.end_user) for brief in briefs if brief.end_user is not None
        )
        assert max(tenants.values(), default=0) <= (caps.per_tenant or len(claims))
        assert max(people.values(), default=0) <= (caps.per_end_user or len(claims))
        prompts = [claim.episode.prompt_digest for claim in claims]
        assert len(set(prompts)) == len(prompts) <= caps.num_prompts
        if len(claims) < caps.num_prompts or len({item.language for item in requests}) <= caps.num_prompts:
            _check_languages(briefs, requests, caps, tenants, people)


def _check_languages(
    briefs: Sequence[Brief],
    requests: Sequence[Logged],
    caps: Caps,
    tenants: Counter[str],
    people: Counter[tuple[str, str | None]],
) -> None:
    """A language is absent only where every request in it is of a tenant or a person with a full share."""
    present = {brief.language for brief in briefs}
    for item in requests:
        capped_tenant = caps.per_tenant is not None and tenants[item.tenant] == caps.per_tenant
        capped_person = caps.per_end_user is not None and people[item.tenant, item.end_user] == caps.per_end_user
        assert item.language in present or capped_tenant or capped_person


async def _on_store(store: Store, requests: Sequence[Logged], caps: Caps) -> list[list[Claim]]:
    await store.redis.flushall()
    journal = RedisJournal(store, StoreConfig(held_out_share=0.0))
    for number, item in enumerate(requests):
        await journal.append(item.episode(number))
    return await _steps(journal, caps)


def test_caps_and_languages_hold_on_the_store(tmp_path: Path) -> None:
    """For any traffic, also when prompts of earlier steps come again."""
    with asyncio.Runner() as runner:
        # Without shrinking: on a store it takes minutes, and the fake fails on the same rules.
        @settings(max_examples=60, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
        @given(REQUESTS, CAPS)
        def check(requests: list[Logged], caps: Caps) -> None:
            _check(runner.run(_on_store(store, requests, caps)), requests, caps)

        opening = open_store(StoreConfig(), tmp_path)
        store = runner.run(opening.__aenter__())
        try:
            check()
        finally:
            runner.run(opening.__aexit__(None, None, None))


@settings(deadline=None)
@given(REQUESTS, CAPS)
def test_caps_and_languages_hold_in_memory(requests: list[Logged], caps: Caps) -> None:
    """The fake keeps the same rules."""
    journal = MemoryJournal([item.episode(number) for number, item in enumerate(requests)])
    _check(asyncio.run(_steps(journal, caps)), requests, caps)


async def test_the_same_seed_claims_the_same(store: Store) -> None:
    """One journal, emptied and filled alike: order and choice are the same for a seed and another for another one.

    Fresh episodes come in their order whatever the seed is, so it is the third step's repetitions that differ.
    """
    # Entries are a millisecond apart, so that prompts keep their order among each other.
    journal = RedisJournal(store, StoreConfig(held_out_share=0.0))
    for number in range(12):
        await journal.append(Logged("acme", "de", number, None).episode(number))
        await asyncio.sleep(0.002)
    await journal.settle(await journal.claim([], 12, seed=0))

    async def names(seed: int) -> list[list[str]]:
        steps = await _steps(journal, Caps(4, None, 2, seed))
        return [[claim.episode.id for claim in claims] for claims in steps]

    first = await names(1)
    assert first == await names(1)
    assert first != await names(2)
    # Twelve prompts in three steps of four: each comes once before any comes twice.
    assert sorted(name for step in first for name in step) == sorted(f"r-{number}" for number in range(12))
