"""Floods of ratings, and texts that nobody should learn to write."""

import pytest

from agent.allowance import Allowance
from agent.brief import Brief, Kind
from agent.contract import LanguageContract
from agent.fakes import FixedDetector
from agent.feedback import Comment, Feedback, Rating, Thumbs
from rewards.config import FeedbackConfig
from rewards.influence import LeftOut
from rewards.quarantine import ChosenText, without_floods
from tests.rewards.feedback_samples import reply, said

CAPS = FeedbackConfig(max_ratings_per_hour=10, max_key_ratings_per_hour=30)


def kept(pieces: list[Feedback]) -> tuple[int, int]:
    """How many pieces are kept, and how many were a flood."""
    replies, flooded = without_floods([reply("Gut.", piece) for piece in pieces], CAPS)
    return sum(len(item.feedback) for item in replies), flooded


def test_more_equal_ratings_in_an_hour_than_allowed_are_left_out_whole() -> None:
    """Ten are allowed, the eleventh takes all along; what came an hour before or after stays."""
    assert kept([said(Rating(5), at_s=n) for n in range(10)]) == (10, 0)
    assert kept([said(Rating(5), at_s=n) for n in range(11)]) == (0, 11)
    flood = [said(Rating(5), at_s=10_000 + n) for n in range(11)]
    assert kept([said(Rating(5), at_s=0), *flood, said(Rating(5), at_s=20_000)]) == (2, 11)


def test_an_hour_is_any_hour() -> None:
    """Eleven ratings across the full hour are a flood too; 400 s apart, no hour has more than 9 of them."""
    assert kept([said(Rating(5), at_s=3590 + 2 * n) for n in range(11)]) == (0, 11)
    assert kept([said(Rating(5), at_s=400 * n) for n in range(20)]) == (20, 0)


def test_ratings_that_differ_are_no_flood() -> None:
    """Nine in ten equal make one; a thumb is another value than a star."""
    fives = [said(Rating(5), at_s=n) for n in range(17)]
    differing = [said(Rating(2), at_s=17), said(Thumbs(True), at_s=18), said(Rating(4), at_s=19)]
    # 17 of the first 18 are equal (94 %), so all 18 are a flood; 17 of 19 are 89 %, so the last two are none.
    assert kept([*fives, *differing]) == (2, 18)
    mixed = [said(Rating(1 + n % 5), at_s=n) for n in range(20)]
    assert kept(mixed) == (20, 0)


def test_a_key_may_bring_more_than_an_end_user_but_not_any_number() -> None:
    """30 equal ratings of 30 people through one key are fine, 31 are not; another key of theirs is."""
    people = [said(Rating(5), f"user {n}", at_s=n) for n in range(31)]
    assert kept(people[:30]) == (30, 0)
    assert kept(people) == (0, 31)
    assert kept([*people, said(Rating(5), "user 31", key="key_2")]) == (1, 31)


def test_without_end_users_the_keys_bound_holds() -> None:
    """Nobody can tell how many people they are."""
    assert kept([said(Rating(5), None, at_s=n) for n in range(30)]) == (30, 0)
    assert kept([said(Rating(5), None, at_s=n) for n in range(31)]) == (0, 31)


def test_comments_are_no_ratings() -> None:
    """A flood takes the ratings of its people, and nothing else that they said."""
    pieces = [said(Rating(5), at_s=n) for n in range(11)] + [said(Comment(str(n)), at_s=n) for n in range(40)]
    assert kept(pieces) == (40, 11)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Die Glocke klingt hell.", None),
        ("The bell rings out loud.", LeftOut.LANGUAGE),
        ("Als KI kann ich das nicht schreiben.", LeftOut.REFUSAL),
        (" … \n", LeftOut.SUBSTANCE),
        ("Schreibe drei Sätze über unsere neue Klingel.", LeftOut.SUBSTANCE),
    ],
)
def test_what_nobody_should_learn_to_write_has_a_reason(text: str, reason: LeftOut | None) -> None:
    """Another language, a refusal, nothing at all, or the instructions once more."""
    flaw = ChosenText(LanguageContract(FixedDetector({"die": "de", "the": "en", "out": "en"})), lambda *_: ())
    brief = Brief("acme", Kind.CREATE, "de", instructions="Schreibe drei Sätze über unsere neue Klingel.")
    assert flaw(brief, text) == reason


def test_brand_terms_may_stand_in_any_language() -> None:
    """Those of the tenant's language are asked for."""
    asked = []

    def brand_terms(tenant: str, language: str) -> tuple[str, ...]:
        asked.append((tenant, language))
        return ("The Bell Company of Rome",)

    flaw = ChosenText(LanguageContract(FixedDetector({"the": "en"})), brand_terms)
    assert flaw(Brief("acme", Kind.CREATE, "de", instructions="x"), "The Bell Company of Rome") is None
    assert asked == [("acme", "de")]


def test_what_a_tenant_lets_stand_in_a_reply_may_stand_in_an_edit() -> None:
    """English is let stand up to the whole text, French is not: the brief carries what served replies were held to."""
    flaw = ChosenText(LanguageContract(FixedDetector({"die": "de", "the": "en", "la": "fr"})), lambda *_: ())
    brief = Brief("acme", Kind.CREATE, "de", instructions="x", allowance=Allowance(1.0, ("en",)))
    assert flaw(brief, "The bell rings out loud.") is None
    assert flaw(brief, "La cloche sonne bien fort.") is LeftOut.LANGUAGE
