"""Prompts: both sets are apart, balanced, follow from the seed, and come from the shipped texts."""

import random
from collections import Counter
from importlib.resources import files

import pytest

from agent.brief import Brief, Kind
from agent.errors import InvalidInput
from service.bench.learning.prompts import (
    LANGUAGES,
    NUM_TOPICS,
    excerpt,
    make_prompts,
    read_articles,
    read_wordings,
    with_mistakes,
    writing_briefs,
)


def prompt(brief: Brief) -> tuple[str, str, str, str]:
    return brief.kind, brief.language, brief.instructions, brief.text


def test_the_sets_share_no_prompt_and_no_text() -> None:
    """An article that is held out is held out in every language: no beginning of a text stands in both sets."""
    prompts = make_prompts(LANGUAGES, 640, 128, seed=0)
    assert not {prompt(brief) for brief in prompts.train} & {prompt(brief) for brief in prompts.held_out}
    articles = read_articles()
    numbers = {
        name: {
            number
            for language in LANGUAGES
            for number, text in enumerate(articles[language])
            if any(brief.language == language and brief.text and text.startswith(brief.text) for brief in briefs)
        }
        for name, briefs in (("train", prompts.train), ("held_out", prompts.held_out))
    }
    assert numbers["train"]
    assert numbers["held_out"]
    assert not numbers["train"] & numbers["held_out"]


def test_topics_are_held_out_in_every_language_or_in_none() -> None:
    """Topics stand in one order in all languages; 8 of 12 may train, the other 4 may not."""
    prompts = make_prompts(LANGUAGES, 84 * 16, 36 * 16, seed=3)
    wordings = read_wordings()

    def topics(briefs: tuple[Brief, ...]) -> set[int]:
        return {
            number
            for brief in briefs
            for number, topic in enumerate(wordings[brief.language].topics)
            if not brief.text and topic in brief.instructions
        }

    assert len(topics(prompts.train)) == 8
    assert topics(prompts.train) | topics(prompts.held_out) == set(range(12))
    assert not topics(prompts.train) & topics(prompts.held_out)


def test_any_beginning_of_a_set_is_balanced_by_language_and_kind() -> None:
    """The first 32 of four languages: 8 of each language, and 2 of each of the four sorts of work."""
    prompts = make_prompts(("de", "en", "ja", "ru"), 32, 8, seed=1)
    assert Counter(brief.language for brief in prompts.train) == {"de": 8, "en": 8, "ja": 8, "ru": 8}
    german = [brief for brief in prompts.train if brief.language == "de"]
    sorts = Counter((brief.kind, bool(brief.text), brief.max_words) for brief in german if brief.text)
    assert sorts == {(Kind.CORRECT, True, None): 2, (Kind.CREATE, True, 20): 2, (Kind.CREATE, True, 30): 2}
    assert sum(not brief.text for brief in german) == 2


def test_prompts_follow_from_the_seed() -> None:
    """The same seed makes the same briefs, another one others."""
    assert make_prompts(("de", "fr"), 20, 10, seed=5) == make_prompts(("de", "fr"), 20, 10, seed=5)
    assert make_prompts(("de", "fr"), 20, 10, seed=5) != make_prompts(("de", "fr"), 20, 10, seed=6)


def test_what_cannot_be_made_is_refused() -> None:
    """Unknown languages, and more prompts than the texts of two languages give: 21 articles x 4 x 2 = 168."""
    with pytest.raises(InvalidInput, match="--languages"):
        make_prompts(("de", "xx"), 4, 4, seed=0)
    with pytest.raises(InvalidInput, match="--train-prompts: must be at most 168 for 2 languages"):
        make_prompts(("de", "en"), 169, 4, seed=0)


def test_an_excerpt_is_whole_sentences_or_whole_words() -> None:
    """`One two. ` has 9 bytes: 8 fit the first sentence, 17 both; 6 bytes of the first hold one word alone."""
    text = "One two. Six ten."
    assert excerpt(text, 17) == text
    assert excerpt(text, 12) == "One two."
    assert excerpt(text, 6) == "One"
    assert excerpt("каждый", 5) == "ка"  # two bytes each: the third letter does not fit whole


def test_mistakes_change_a_text_and_keep_its_spaces() -> None:
    """Letters are exchanged, lost or doubled inside of words; numbers of words stay."""
    text = "Alle Menschen sind frei und gleich geboren"
    wrong = with_mistakes(text, random.Random(0))
    assert wrong != text
    assert len(wrong.split()) == len(text.split())
    assert with_mistakes("1 2 3", random.Random(0)) == "1 2 3"


def test_the_texts_are_thirty_articles_of_each_language_with_their_source() -> None:
    """The data file names where it is from and stays small."""
    raw = (files("service.bench.learning") / "udhr.json").read_text(encoding="utf-8")
    assert '"source": "Universal Declaration of Human Rights' in raw
    assert len(raw.encode()) < 200_000
    articles = read_articles()
    assert set(articles) == set(LANGUAGES) == set(read_wordings())
    assert {len(texts) for texts in articles.values()} == {30}
    assert all(text.strip() for texts in articles.values() for text in texts)


def test_every_language_has_wordings_of_one_size() -> None:
    """Numbers of topics, forms and tones agree, since topics are held out by number."""
    sizes = {(len(row.topics), len(row.forms), len(row.tones)) for row in read_wordings().values()}
    assert sizes == {(12, 3, 3)}


def test_briefs_that_ask_for_a_text_are_every_form_topic_tone_and_length_once() -> None:
    """3 forms x 12 topics x 3 tones x 3 lengths are 324 different briefs; the chance that is given orders them."""
    briefs = writing_briefs("pl", range(NUM_TOPICS), random.Random(1))
    assert len(set(briefs)) == 324
    assert {(brief.kind, brief.language, brief.text) for brief in briefs} == {(Kind.CREATE, "pl", "")}
    again = writing_briefs("pl", range(NUM_TOPICS), random.Random(2))
    assert again != briefs
    assert set(again) == set(briefs)
