"""Pairs of a node: feedback joined with the journal's replies."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from agent.brief import Brief
from agent.episode import Episode
from agent.errors import StoreError
from agent.feedback import Comment, Comparison, Feedback, Opinion, Rating, TextEdit
from rewards.config import FeedbackConfig
from rewards.influence import LeftOut, PairSet
from rewards.preference import PairSource, PreferencePairs
from service.config import StoreConfig
from service.feedback.fakes import MemoryEpisodes, MemoryFeedback
from service.feedback.pairs import FeedbackPairs
from service.journal import RedisJournal, Split, split_of
from service.store import Store
from tests.service.feedback.samples import episode


def said(opinion: Opinion, request: str, *, language: str = "de", tenant: str = "acme", at_s: float = 0) -> Feedback:
    at = datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(seconds=at_s)
    return Feedback(tenant, request, language, at, "key_1", opinion, "anna")


def no_flaw(brief: Brief, text: str) -> None:
    """Every text is fine."""


def pairs_of(
    given: list[Feedback], episodes: list[Episode], *, held_out_share: float = 0.0, weighed: list[PairSet] | None = None
) -> FeedbackPairs:
    seen = [] if weighed is None else weighed
    return FeedbackPairs(
        MemoryFeedback(given),
        MemoryEpisodes(episodes),
        FeedbackConfig(max_ratings_per_hour=10),
        no_flaw,
        held_out_share=held_out_share,
        on_weighed=lambda _, found: seen.append(found),
    )


def test_they_are_preference_pairs() -> None:
    """The Protocol that reward models' training consumes."""

    def check(pairs: FeedbackPairs) -> PreferencePairs:
        return pairs

    assert check.__annotations__["return"] is PreferencePairs


async def test_feedback_and_replies_of_a_language_become_pairs() -> None:
    """Of every tenant; a comment makes none, nor does feedback on a reply that the journal has dropped."""
    episodes = [
        episode("req_1", "Gut."),
        episode("req_2", "Schlecht."),
        episode("req_3", "Eins.", "Zwei.", tenant="zeta"),
        episode("req_4", "Good.", language="en"),
    ]
    given = [
        said(Rating(5), "req_1"),
        said(Rating(1), "req_2", at_s=1),
        said(Comparison(True, "Zwei."), "req_3", tenant="zeta", at_s=2),
        said(TextEdit("Better."), "req_4", language="en"),
        said(TextEdit("Besser."), "req_gone"),
        said(Comment("Na ja."), "req_1"),
    ]
    found = await pairs_of(given, episodes).pairs("de")
    assert [(pair.source, pair.chosen, pair.rejected, pair.brief.tenant) for pair in found] == [
        (PairSource.RATING, "Gut.", "Schlecht.", "acme"),
        (PairSource.COMPARISON, "Eins.", "Zwei.", "zeta"),
    ]
    assert [pair.chosen for pair in await pairs_of(given, episodes).pairs("en")] == ["Better."]
    assert await pairs_of(given, episodes).pairs("fr") == []


async def test_a_prompt_is_held_out_where_the_journal_holds_it_out() -> None:
    """By the journal's own function and share: of 40 prompts those that it puts aside, and no others."""
    episodes = [episode(f"req_{n}", "Gut.", prompt=f"Klingel {n}.") for n in range(40)]
    given = [said(TextEdit(f"Besser {n}."), f"req_{n}", at_s=n) for n in range(40)]
    held = [split_of(item.brief, 0.3) is Split.HELD for item in episodes]
    assert 0 < sum(held) < 40
    caps = FeedbackConfig(max_pairs_per_end_user=40)
    pairs = FeedbackPairs(MemoryFeedback(given), MemoryEpisodes(episodes), caps, no_flaw, held_out_share=0.3)
    assert [pair.held_out for pair in await pairs.pairs("de")] == held


async def test_what_was_left_out_is_told() -> None:
    """A flood of 11 ratings where 10 are allowed, beside one edit; the result is told to who listens."""
    episodes = [episode(f"req_{n}", f"Text {n}.") for n in range(12)]
    given = [said(Rating(5), f"req_{n}", at_s=n) for n in range(11)] + [said(TextEdit("Besser."), "req_11")]
    weighed: list[PairSet] = []
    found = await pairs_of(given, episodes, weighed=weighed).weighed("de")
    assert [pair.chosen for pair in found.pairs] == ["Besser."]
    assert found.left_out == {LeftOut.FLOOD: 11}
    assert weighed == [found]


async def test_a_tenant_that_is_not_served_any_more_gives_no_pairs() -> None:
    """Its feedback stays, and moves nothing."""
    given = [said(TextEdit("Besser."), "req_1"), said(TextEdit("Kaufen!"), "req_2", tenant="spam")]
    pairs = FeedbackPairs(
        MemoryFeedback(given),
        MemoryEpisodes([episode("req_1"), episode("req_2", tenant="spam")]),
        FeedbackConfig(),
        no_flaw,
        held_out_share=0,
        is_served=lambda tenant: tenant != "spam",
    )
    assert [pair.chosen for pair in await pairs.pairs("de")] == ["Besser."]


async def test_a_lost_store_is_no_empty_list() -> None:
    """Neither the feedback's nor the journal's."""
    kept, episodes = MemoryFeedback([said(TextEdit("Besser."), "req_1")]), MemoryEpisodes([episode("req_1")])
    pairs = FeedbackPairs(kept, episodes, FeedbackConfig(), no_flaw, held_out_share=0)
    episodes.failure = StoreError("gone")
    with pytest.raises(StoreError):
        await pairs.pairs("de")
    episodes.failure, kept.failure = None, StoreError("gone")
    with pytest.raises(StoreError):
        await pairs.pairs("de")


async def test_replies_are_read_from_a_real_journal(store: Store) -> None:
    """More than one batch of them, and each once."""
    journal = RedisJournal(store, StoreConfig(held_out_share=0.0))
    for number in range(120):
        await journal.append(episode(f"req_{number}", f"Gut {number}.", prompt=f"Klingel {number}."))
    given = [replace(said(TextEdit(f"Besser {n}."), f"req_{n}", at_s=n), end_user=f"user {n}") for n in range(-1, 120)]
    pairs = FeedbackPairs(MemoryFeedback(given), journal, FeedbackConfig(), no_flaw, held_out_share=0)
    assert [pair.chosen for pair in await pairs.pairs("de")] == [f"Besser {n}." for n in range(120)]
