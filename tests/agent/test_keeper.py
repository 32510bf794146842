"""Episodes are kept beside the requests that caused them: without holding them up, and without losing any quietly."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from agent.brief import Brief, Kind
from agent.completion import Completion, FinishReason, Sampling, VersionSpan
from agent.episode import Episode, PromptRef
from agent.errors import StoreError
from agent.fakes import MemoryJournal
from agent.keeper import EpisodeKeeper
from agent.verdict import LanguageVerdict, Verdict

EPISODE = Episode(
    id="r1",
    created_at=datetime(2026, 11, 23, tzinfo=UTC),
    brief=Brief("acme", Kind.CREATE, "de", instructions="x"),
    prompt=PromptRef("v1", "create", "de"),
    completions=(
        Completion(
            text="Ja.",
            prompt_token_ids=(1,),
            token_ids=(2,),
            logprobs=(-0.5,),
            sampling=Sampling(max_tokens=1),
            finish_reason=FinishReason.STOP,
            versions=VersionSpan(0, 0),
        ),
    ),
    served=0,
    verdict=LanguageVerdict("de", Verdict.UNDETERMINED, None, ()),
)


class StuckJournal:
    """Takes nothing until it is let go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.kept: list[str] = []
        self.release = asyncio.Event()

    async def append(self, episode: Episode) -> None:
        self.begun.append(episode.id)
        await self.release.wait()
        self.kept.append(episode.id)


class Failures:
    """What the keeper reported."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def __call__(self, tenant: str, error: Exception) -> None:
        self.seen.append((tenant, str(error)))


def named(names: Sequence[str]) -> list[Episode]:
    return [replace(EPISODE, id=name) for name in names]


async def test_keeping_does_not_wait_for_a_stuck_journal() -> None:
    """It returns once the write has begun; the write goes on."""
    journal = StuckJournal()
    keeper = EpisodeKeeper(journal, Failures())
    await keeper.keep(EPISODE)
    assert (journal.begun, journal.kept, keeper.num_waiting) == (["r1"], [], 1)
    journal.release.set()
    await keeper.drain()
    assert (journal.kept, keeper.num_waiting) == (["r1"], 0)


async def test_a_journal_that_does_not_wait_has_the_episode_at_once() -> None:
    """One turn of the event loop is enough for it."""
    journal = MemoryJournal()
    await EpisodeKeeper(journal, Failures()).keep(EPISODE)
    assert [episode.id for episode in journal.episodes] == ["r1"]


async def test_callers_wait_while_too_many_writes_are_under_way() -> None:
    """With two allowed the third caller waits for its own write; cancelling it cancels no write."""
    journal = StuckJournal()
    keeper = EpisodeKeeper(journal, Failures(), most_unawaited=2)
    first, second, third = named(["r1", "r2", "r3"])
    await keeper.keep(first)
    await keeper.keep(second)
    held = asyncio.create_task(keeper.keep(third))
    await asyncio.sleep(0.01)
    assert not held.done()
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held
    journal.release.set()
    await keeper.drain()
    assert journal.kept == ["r1", "r2", "r3"]


async def test_a_failed_write_is_reported_with_its_tenant() -> None:
    """The caller hears nothing of it."""
    journal, failures = MemoryJournal(), Failures()
    journal.failure = StoreError("the store is gone")
    keeper = EpisodeKeeper(journal, failures)
    await keeper.keep(EPISODE)
    await keeper.drain()
    assert failures.seen == [("acme", "the store is gone")]


async def test_a_stop_does_not_wait_for_ever() -> None:
    """What a stuck store has not taken in time is reported as lost, write by write."""
    journal, failures = StuckJournal(), Failures()
    keeper = EpisodeKeeper(journal, failures, drain_s=0.05)
    for episode in named(["r1", "r2"]):
        await keeper.keep(episode)
    await keeper.drain()
    lost = ("acme", "the store did not take the episode before the node stopped")
    assert (failures.seen, keeper.num_waiting, journal.kept) == ([lost, lost], 0, [])
