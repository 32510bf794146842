"""From feedback to candidates."""

from dataclasses import replace

import pytest

from agent.feedback import Comment, Comparison, Implicit, Opinion, Rating, Signal, TextEdit, Thumbs
from rewards.pairs import Candidate, find_candidates
from rewards.preference import PairSource
from tests.rewards.feedback_samples import NOON, reply, said


def texts(candidates: list[Candidate]) -> list[tuple[str, str]]:
    return [(candidate.chosen, candidate.rejected) for candidate in candidates]


def test_an_edit_is_chosen_over_what_it_edits() -> None:
    """Of one voice the newest; each voice has its own; a text beside the served one may be what was edited."""
    first, second = said(TextEdit("Besser.")), said(TextEdit("Am besten.", published=True), at_s=5)
    of_ben = said(TextEdit("Anders."), "ben", about="Zweiter Text.")
    found = find_candidates([reply("Gut.", first, second, of_ben)], max_per_prompt=8)
    assert texts(found) == [("Am besten.", "Gut."), ("Anders.", "Zweiter Text.")]
    assert {candidate.source for candidate in found} == {PairSource.EDIT}
    assert [candidate.end_users for candidate in found] == [frozenset({"anna"}), frozenset({"ben"})]
    assert found[0].at == second.at > NOON


def test_a_text_that_was_published_as_it_was_makes_no_pair() -> None:
    """White space is no change; a comment and an implicit signal say nothing of two texts either."""
    opinions: list[Opinion] = [TextEdit("Gut\n so. ", published=True), Comment("Fein."), Implicit(Signal.PUBLISHED)]
    assert find_candidates([reply("Gut so.", *map(said, opinions))], max_per_prompt=8) == []


def test_the_better_text_of_a_comparison_is_chosen() -> None:
    """Whichever of the two it is; a changed mind counts alone."""
    better = reply("Eins.", said(Comparison(True, "Zwei.")), said(Comparison(False, "Drei.")))
    changed = reply("Eins.", said(Comparison(True, "Vier.")), said(Comparison(False, "Vier."), at_s=9))
    found = find_candidates([better, changed], max_per_prompt=8)
    assert texts(found) == [("Eins.", "Zwei."), ("Drei.", "Eins."), ("Vier.", "Eins.")]
    assert {candidate.source for candidate in found} == {PairSource.COMPARISON}


def test_a_list_of_alternatives_compares_with_lists_and_its_items_with_items() -> None:
    """An edit of the whole list, and one item against the list, are left out."""
    of_list = reply("A\nB", said(TextEdit("A")), said(Comparison(True, "A")), is_list=True)
    assert find_candidates([of_list], max_per_prompt=8) == []
    fine = [
        said(Comparison(True, "C\nD", "req_2")),
        said(TextEdit("A!"), about="A"),
        said(Comparison(False, "B"), about="A"),
    ]
    found = find_candidates([reply("A\nB", *fine, is_list=True)], max_per_prompt=8)
    assert texts(found) == [("A!", "A"), ("A\nB", "C\nD"), ("B", "A")]


def test_replies_to_one_prompt_are_paired_when_they_are_two_stars_apart() -> None:
    """Means over voices, each one's newest: (5 + 4) / 2 = 4.5 and 2.5 are 2 apart, 4.5 and 3 are not.

    Ben's 1 was followed by his 4; Anna's is 5.
    """
    good = reply("Gut.", said(Rating(5)), said(Rating(1), "ben"), said(Rating(4), "ben", at_s=9))
    fair = reply("Mäßig.", said(Rating(3)))
    poor = reply("Schlecht.", said(Rating(2)), said(Rating(3), "ben"))
    found = find_candidates([fair, good, poor], max_per_prompt=8)
    assert texts(found) == [("Gut.", "Schlecht.")]
    assert found[0].source is PairSource.RATING
    assert found[0].end_users == {"anna", "ben"}
    other_prompt = replace(poor, prompt="Andere Klingel.")
    other_tenant = reply("Schlecht.", said(Rating(1)), tenant="zeta")
    assert find_candidates([good, other_prompt, other_tenant], max_per_prompt=8) == []


@pytest.mark.parametrize(
    ("first", "second", "is_pair"),
    [
        ([Thumbs(True)], [Thumbs(False)], True),
        ([Thumbs(True)], [Rating(1)], False),
        ([Thumbs(True), Rating(5)], [Thumbs(False), Rating(4)], True),
        ([Thumbs(True), Rating(1)], [Thumbs(False), Rating(5)], False),
        ([Thumbs(False), Rating(5)], [Thumbs(True), Rating(1)], False),
        ([Thumbs(True)], [Thumbs(True)], False),
    ],
)
def test_up_is_better_than_down_unless_the_stars_disagree(
    first: list[Opinion], second: list[Opinion], is_pair: bool
) -> None:
    """A thumb is not compared with a star."""
    replies = [reply("Eins.", *map(said, first)), reply("Zwei.", *map(said, second))]
    assert texts(find_candidates(replies, max_per_prompt=8)) == ([("Eins.", "Zwei.")] if is_pair else [])


def test_a_mixed_crowd_is_neither_up_nor_down() -> None:
    """One up and one down are 0 on average, which is not above a down's -1 by sign; two ups and a down are above 0."""
    down = reply("Unten.", said(Thumbs(False)))
    split = reply("Geteilt.", said(Thumbs(True)), said(Thumbs(False), "ben"))
    mostly = reply("Meist.", said(Thumbs(True)), said(Thumbs(True), "ben"), said(Thumbs(False), "cora"))
    assert texts(find_candidates([down, split, mostly], max_per_prompt=8)) == [("Meist.", "Unten.")]


def test_a_prompt_gives_no_more_pairs_than_it_may_and_those_that_are_furthest_apart() -> None:
    """Of 5, 4, 2, 1 the pairs are 5-1 (4 apart), 5-2 and 4-1 (3), 4-2 (2): the widest one, then the widest three."""
    replies = [reply(f"Stern {stars}.", said(Rating(stars))) for stars in (4, 1, 5, 2)]
    assert texts(find_candidates(replies, max_per_prompt=1)) == [("Stern 5.", "Stern 1.")]
    assert set(texts(find_candidates(replies, max_per_prompt=3))) == {
        ("Stern 5.", "Stern 1."),
        ("Stern 5.", "Stern 2."),
        ("Stern 4.", "Stern 1."),
    }
    assert len(find_candidates(replies, max_per_prompt=8)) == 4


def test_the_same_text_in_two_replies_is_one_rated_text() -> None:
    """Anna's newest rating of it counts: 1, not the mean with her earlier 5; Anna rates through two requests."""
    spam = [reply("Spam.", said(Rating(5))), reply("Spam.", said(Rating(1), at_s=9, request="req_2"))]
    good = reply("Gut.", said(Rating(3)))
    assert texts(find_candidates([*spam, good], max_per_prompt=8)) == [("Gut.", "Spam.")]


def test_a_pair_is_known_by_its_tenant_brief_and_texts() -> None:
    """Who said it and when does not matter; the reverse is another pair about the same question."""
    edit = find_candidates([reply("Gut.", said(TextEdit("Besser.")))], max_per_prompt=8)[0]
    later = find_candidates([reply("Gut.", said(TextEdit("Besser."), "ben", at_s=9))], max_per_prompt=8)[0]
    reverse = find_candidates([reply("Besser.", said(TextEdit("Gut.")))], max_per_prompt=8)[0]
    other = find_candidates([reply("Gut.", said(TextEdit("Besser.")), tenant="zeta")], max_per_prompt=8)[0]
    assert edit.id == later.id
    assert len({edit.id, reverse.id, other.id}) == 3
    assert edit.question == reverse.question != other.question


def test_a_pair_names_its_end_user_when_it_rests_on_one_alone() -> None:
    """And keeps the side of the journal that its prompt is on."""
    pair = find_candidates([reply("Gut.", said(TextEdit("Besser.")), held_out=True)], max_per_prompt=8)[0].pair()
    assert (pair.end_user, pair.held_out, pair.chosen, pair.rejected) == ("anna", True, "Besser.", "Gut.")
    rated = [reply("Gut.", said(Rating(5), "ben")), reply("Schlecht.", said(Rating(1)))]
    assert find_candidates(rated, max_per_prompt=8)[0].pair().end_user is None
