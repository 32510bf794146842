"""What the demo asks for, and the configuration that goes with it."""

from collections import Counter

from agent.brief import Brief, Kind
from agent.language import FastTextDetector
from service.config_file import check_languages, parse
from service.demo.briefs import first_of_each_language, languages_of, load_briefs
from service.demo.configuration import GATE_PROMPTS, REPLY_TOKENS, configuration
from service.http.content_schema import ContentRequest
from service.journal import Split, split_of
from service.secrets import hash_key

CONFIG = parse(configuration(hash_key("key"), languages_of(load_briefs())))


def test_the_configuration_is_valid() -> None:
    """Every language of the briefs is one of the tenant's, and one that the detector knows."""
    check_languages(CONFIG, FastTextDetector().labels)
    assert list(CONFIG.tenants[0].languages) == languages_of(load_briefs())
    assert CONFIG.tenants[0].key_hashes == (hash_key("key"),)
    assert CONFIG.server.port == 0
    assert CONFIG.agent.max_tokens == CONFIG.tuning.max_tokens == REPLY_TOKENS


def test_every_brief_is_a_valid_request_of_its_tenant() -> None:
    """The API takes each of them."""
    for brief in load_briefs():
        asked = ContentRequest.model_validate(brief.body).brief(CONFIG.tenants[0])
        assert (asked.language, asked.instructions) == (brief.language, brief.instructions)


def test_languages_take_turns() -> None:
    """The first brief of every language comes before the second of any."""
    briefs = load_briefs()
    languages = languages_of(briefs)
    assert [brief.language for brief in briefs[: len(languages)]] == languages
    assert first_of_each_language(briefs) == briefs[: len(languages)]
    assert len(set(briefs)) == len(briefs)


def test_every_language_has_prompts_to_train_on_and_to_hold_out() -> None:
    """Each language has at least 2 prompts on the training side, and its share of the gate's on the other."""
    sides = Counter(
        (
            brief.language,
            split_of(
                Brief("demo", Kind.CREATE, brief.language, instructions=brief.instructions),
                CONFIG.store.held_out_share,
            ),
        )
        for brief in load_briefs()
    )
    languages = languages_of(load_briefs())
    for language in languages:
        assert sides[language, Split.TRAIN] >= 2
        assert sides[language, Split.HELD] >= GATE_PROMPTS
