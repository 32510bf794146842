"""Whose preferences count: one vote per question, caps per end user and tenant, and a tenant's share."""

from collections import Counter

from agent.brief import Brief
from agent.feedback import Comparison, Rating, TextEdit
from rewards.config import FeedbackConfig
from rewards.influence import LeftOut, PairSet, weigh
from rewards.pairs import JudgedReply, find_candidates
from rewards.quarantine import without_floods
from tests.rewards.feedback_samples import reply, said

UNCAPPED = FeedbackConfig(
    max_pairs_per_tenant=10**6, max_pairs_per_end_user=10**6, max_share_per_tenant=1, free_pairs_per_tenant=10**6
)


def no_flaw(brief: Brief, text: str) -> None:
    """Every text is fine."""


def edited(number: int, end_user: str | None = "anna", tenant: str = "acme") -> JudgedReply:
    piece = said(TextEdit(f"Besser {number}."), end_user, at_s=number, tenant=tenant)
    return reply(f"Gut {number}.", piece, prompt=f"Klingel {number}.", tenant=tenant)


def weighed(replies: list[JudgedReply], caps: FeedbackConfig) -> PairSet:
    return weigh(find_candidates(replies, max_per_prompt=caps.max_pairs_per_prompt), caps, no_flaw)


def by_tenant(pairs: PairSet) -> dict[str, int]:
    return dict(Counter(pair.brief.tenant for pair in pairs.pairs))


def test_pairs_come_oldest_first_and_each_once() -> None:
    """Two people who made the same of a text are one pair, which then names neither."""
    twice = reply("Gut 1.", said(TextEdit("Besser 1."), "ben", at_s=50), prompt="Klingel 1.")
    found = weighed([edited(3), edited(1), edited(2), twice], UNCAPPED)
    assert [pair.chosen for pair in found.pairs] == ["Besser 2.", "Besser 3.", "Besser 1."]
    assert (found.num_candidates, found.left_out) == (3, {})


def test_the_majority_decides_a_question_and_a_tie_decides_nothing() -> None:
    """Two against one; the same person twice is one; people without a name are one together."""
    for_it = [said(Comparison(True, "B."), user) for user in ("anna", "ben")]
    against = said(Comparison(False, "B."), "cora")
    assert [pair.chosen for pair in weighed([reply("A.", *for_it, against)], UNCAPPED).pairs] == ["A."]
    tie = weighed([reply("A.", for_it[0], against)], UNCAPPED)
    assert (tie.pairs, tie.left_out) == ((), {LeftOut.CONTRADICTED: 1})
    unnamed = [said(Comparison(False, "B."), None, key=key) for key in ("key_1", "key_2")]
    assert [pair.chosen for pair in weighed([reply("A.", *for_it, *unnamed)], UNCAPPED).pairs] == ["A."]


def test_one_end_user_gives_no_more_than_the_cap_and_the_newest() -> None:
    """Five edits of Anna under a cap of two; Ben's one, and those of people without a name, are untouched."""
    replies = [edited(number) for number in range(5)] + [edited(5, "ben")] + [edited(n, None) for n in (6, 7, 8)]
    found = weighed(replies, UNCAPPED.model_copy(update={"max_pairs_per_end_user": 2}))
    assert [pair.chosen[-2] for pair in found.pairs] == list("345678")
    assert found.left_out == {LeftOut.END_USER_CAPPED: 3}


def test_a_pair_of_several_people_is_over_the_cap_when_all_of_them_are() -> None:
    """Ratings by Anna and Ben: Anna has given her one pair, Ben has not."""
    shared = [reply("Gut.", said(Rating(5)), said(Rating(5), "ben")), reply("Schlecht.", said(Rating(1)))]
    found = weighed([edited(900), *shared], UNCAPPED.model_copy(update={"max_pairs_per_end_user": 1}))
    assert len(found.pairs) == 2
    alone = [reply("Gut.", said(Rating(5))), reply("Schlecht.", said(Rating(1)))]
    found = weighed([edited(900), *alone], UNCAPPED.model_copy(update={"max_pairs_per_end_user": 1}))
    assert [pair.chosen for pair in found.pairs] == ["Besser 900."]


def test_a_tenants_end_users_take_turns_under_its_cap() -> None:
    """Ben's one old edit is among the first four, although Anna gave six newer ones."""
    found = weighed(
        [edited(0, "ben")] + [edited(n) for n in range(1, 7)], UNCAPPED.model_copy(update={"max_pairs_per_tenant": 4})
    )
    assert [pair.chosen[-2] for pair in found.pairs] == list("0456")
    assert found.left_out == {LeftOut.TENANT_CAPPED: 3}


def test_what_is_far_beyond_a_tenants_cap_is_not_even_looked_at() -> None:
    """Of 100 flawed texts under a cap of 5 only 20 are judged."""
    judged = []

    def flaw(brief: Brief, text: str) -> LeftOut:
        judged.append(text)
        return LeftOut.REFUSAL

    caps = UNCAPPED.model_copy(update={"max_pairs_per_tenant": 5})
    found = weigh(find_candidates([edited(n) for n in range(100)], max_per_prompt=8), caps, flaw)
    assert len(judged) == 20
    assert found.left_out == {LeftOut.REFUSAL: 20, LeftOut.TENANT_CAPPED: 80}


def test_a_tenant_gives_no_more_than_its_share() -> None:
    """A quarter: beside 30 + 20 + 10 = 60 pairs of others 20 are a quarter of 80; 30 are above 20 as well."""
    counts = {"a": 30, "b": 20, "c": 10, "d": 500}
    replies = [edited(n, None, tenant) for tenant, count in counts.items() for n in range(count)]
    caps = UNCAPPED.model_copy(update={"max_share_per_tenant": 0.25, "free_pairs_per_tenant": 0})
    found = weighed(replies, caps)
    # a: 10, b: 10, c: 10, d: 10 is the largest solution: 11 of c's 10 + 3 * 11 = 43 would be 25.6 %.
    assert by_tenant(found) == {"a": 10, "b": 10, "c": 10, "d": 10}
    assert found.left_out == {LeftOut.SHARE_CAPPED: 20 + 10 + 490}


def test_few_tenants_have_equal_shares_and_each_its_free_pairs() -> None:
    """Alone a tenant has all; of two, with 3 pairs against 40, the larger one has 3, or 25 where so many are free."""
    alone = [edited(n, None) for n in range(40)]
    other = [edited(n, None, "zeta") for n in range(3)]
    caps = UNCAPPED.model_copy(update={"max_share_per_tenant": 0.25, "free_pairs_per_tenant": 0})
    assert by_tenant(weighed(alone, caps)) == {"acme": 40}
    assert by_tenant(weighed(alone + other, caps)) == {"acme": 3, "zeta": 3}
    free = caps.model_copy(update={"free_pairs_per_tenant": 25})
    assert by_tenant(weighed(alone + other, free)) == {"acme": 25, "zeta": 3}


def test_ten_thousand_five_star_ratings_for_spam_are_a_bounded_share() -> None:
    """One tenant rates 10,000 spam replies with five stars, each beside an honest one with one star, through keys and
    end users of its own invention, so that no single one floods. Four honest tenants give 150 edits each.

    Before caps spam is 10,000 of 10,600 pairs (94 %). After: each honest tenant keeps its 150, and spam is a quarter:
    x = (600 + x) / 4 gives x = 200, of 800.
    """
    spam = []
    for number in range(10_000):
        user, prompt, at_s = f"sock {number}", f"Klingel {number}.", number / 10
        five = said(Rating(5), user, at_s=at_s, tenant="spam", key=f"key_{number % 50}")
        one = said(Rating(1), user, at_s=at_s, tenant="spam", key=f"key_{number % 50}")
        spam += [reply(f"Jetzt kaufen {number}!", five, prompt=prompt, tenant="spam")]
        spam += [reply(f"Eine Klingel {number}.", one, prompt=prompt, tenant="spam")]
    honest = [edited(n, f"user {n}", tenant) for tenant in ("a", "b", "c", "d") for n in range(150)]
    kept, _ = without_floods([*honest, *spam], FeedbackConfig())
    candidates = find_candidates(kept, max_per_prompt=8)
    before, after = weigh(candidates, UNCAPPED, no_flaw), weigh(candidates, FeedbackConfig(), no_flaw)
    assert by_tenant(before) == {"a": 150, "b": 150, "c": 150, "d": 150, "spam": 10_000}
    assert by_tenant(after) == {"a": 150, "b": 150, "c": 150, "d": 150, "spam": 200}
    # The tenant's own cap of 2,000 left the rest of the 10,000 - 200 to the share.
    assert after.left_out == {LeftOut.TENANT_CAPPED: 8_000, LeftOut.SHARE_CAPPED: 1_800}
