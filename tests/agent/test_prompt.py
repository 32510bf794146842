"""Prompt templates: each in its own language, rendered in a sandbox."""

import hashlib
import json

import pytest

from agent.brief import Brief, Example, Kind
from agent.contract import LanguageContract
from agent.errors import InvalidConfig
from agent.language import FastTextDetector
from agent.prompt import Phrases, PromptLibrary, TemplateSet
from agent.verdict import Verdict

_KINDS = [kind for kind in Kind if kind is not Kind.CHAT]
_WITHOUT_SCHEMA = (Kind.CORRECT, Kind.SUGGEST)
_LANGUAGES = sorted("en de fr es it pt nl pl ar hi ja zh cs sv tr ko uk".split())


@pytest.fixture(scope="module")
def library() -> PromptLibrary:
    return PromptLibrary.load()


@pytest.fixture(scope="module")
def contract() -> LanguageContract:
    return LanguageContract(FastTextDetector())


def _brief(language: str, kind: Kind = Kind.CREATE, **fields: object) -> Brief:
    given: dict[str, object] = {"instructions": "Q", "text": "Q", **fields}
    return Brief("acme", kind, language, **given)  # type: ignore[arg-type]


def test_the_shipped_languages(library: PromptLibrary) -> None:
    """Seventeen languages have templates of their own."""
    assert sorted(library.languages) == _LANGUAGES


@pytest.mark.parametrize("language", _LANGUAGES)
@pytest.mark.parametrize("kind", _KINDS)
def test_templates_are_in_their_own_language(
    library: PromptLibrary, contract: LanguageContract, language: str, kind: Kind
) -> None:
    """The whole prompt of each kind, constraints included, keeps the language contract of its language."""
    wishes = {
        "tone": "Q",
        "audience": "Q",
        "keywords": ("Q",),
        "forbidden_terms": ("Q",),
        "min_words": 10,
        "max_words": 20,
    }
    shapes = {"num_alternatives": 3, "examples": (Example("Q", "Q"),), "source_language": "fi"}
    brief = _brief(language, kind, **wishes, **shapes, **({} if kind in _WITHOUT_SCHEMA else {"schema": "Q"}))
    prompt = library.render(brief, address="formal")
    verdict = contract.judge(f"{prompt.system}\n{prompt.user}", language)
    assert verdict.verdict is Verdict.PASS
    assert prompt.ref.language == language


@pytest.mark.parametrize("language", _LANGUAGES)
def test_every_wish_of_a_brief_reaches_the_prompt(library: PromptLibrary, language: str) -> None:
    """Instructions, text, tone, audience, keywords, bounds and the way of address are all said."""
    wishes: dict[str, object] = {
        "instructions": "I1",
        "text": "T1",
        "tone": "N1",
        "audience": "A1",
        "keywords": ("K1", "K2"),
    }
    brief = _brief(language, Kind.CREATE, **wishes, min_words=11, max_words=22)
    formal = library.render(brief, address="formal").user
    for value in ("I1", "T1", "N1", "A1", "K1", "K2", "11", "22"):
        assert value in formal
    informal = library.render(brief, address="informal").user
    assert len({formal, informal, library.render(brief).user}) == 3


@pytest.mark.parametrize("language", _LANGUAGES)
@pytest.mark.parametrize("kind", [Kind.TRANSLATE, Kind.REWRITE])
def test_what_shapes_a_reply_reaches_the_prompt(library: PromptLibrary, language: str, kind: Kind) -> None:
    """Text, instructions, forbidden terms, examples with both sides, and the schema stand in the prompt, once each."""
    examples = (Example("W1", "G1"), Example("W2"))
    brief = _brief(
        language, kind, text="T1", instructions="I1", forbidden_terms=("F1", "F2"), examples=examples, schema='{"S1":1}'
    )
    user = library.render(brief).user
    assert {
        value: user.count(value) for value in ("T1", "I1", "F1", "F2", "W1", "G1", "W2", '{"S1":1}')
    } == dict.fromkeys(("T1", "I1", "F1", "F2", "W1", "G1", "W2", '{"S1":1}'), 1)


def test_a_translation_names_the_language_it_starts_from(library: PromptLibrary) -> None:
    """By the name that the language gives itself, in the sentence of the language that is written."""
    user = library.render(_brief("de", Kind.TRANSLATE, text="T", instructions="", source_language="fr")).user
    assert user == (
        "Übersetze diesen Text ins Deutsche. Behalte Bedeutung, Ton und Aufbau bei und antworte nur mit der "
        "Übersetzung:\nT\nSprache des Ausgangstextes: français."
    )


def test_examples_are_shown_side_by_side(library: PromptLibrary) -> None:
    """An example without a given side shows the wanted one alone."""
    user = library.render(_brief("en", Kind.REWRITE, instructions="", examples=(Example("B", "A"), Example("C")))).user
    assert user.endswith("Examples of what is wanted:\nGiven: A\nWanted: B\nWanted: C")


def test_the_briefs_register_goes_before_the_tenants(library: PromptLibrary) -> None:
    """A brief that says how to address its readers is taken at its word."""
    brief = _brief("de", register="informal")
    assert "„du“" in library.render(brief, address="formal").user
    assert "„Sie“" not in library.render(brief, address="formal").user


def test_how_many_alternatives_are_wanted_is_said(library: PromptLibrary) -> None:
    """The number stands in the prompt, as a list to write."""
    user = library.render(_brief("en", Kind.SUGGEST, num_alternatives=4)).user
    assert user.endswith("Write 4 different versions as a numbered list, one to a line.")


def test_prompts_of_earlier_episodes_are_what_they_were(library: PromptLibrary) -> None:
    """Journalled episodes name the set `v1`: what it renders for their briefs has not changed by a byte since it was
    first released, in any language and for a borrowed one."""
    digest = hashlib.sha256()
    bounds: tuple[dict[str, object], ...] = ({}, {"min_words": 3}, {"min_words": 3, "max_words": 9})
    for language in [*_LANGUAGES, "fi"]:
        for kind in (Kind.CREATE, Kind.CORRECT, Kind.SUGGEST):
            for bound in bounds:
                fields = {"instructions": "I", "text": "T", "tone": "N", "audience": "A", "keywords": ("K1", "K2")}
                prompt = library.render(_brief(language, kind, **fields, **bound), address="formal")
                digest.update(json.dumps([prompt.system, prompt.user], ensure_ascii=False).encode())
    assert digest.hexdigest() == "f70b4c9fdce80a3fea60d38dda205e4828538f239dfbd2d72e8ec89a9a66e244"


@pytest.mark.parametrize("language", _LANGUAGES)
def test_one_bound_alone_is_said_alone(library: PromptLibrary, language: str) -> None:
    """A brief with one bound names that number and no other."""
    assert "11" in library.render(_brief(language, min_words=11)).user
    assert "22" in library.render(_brief(language, max_words=22)).user


def test_a_correction_has_no_wishes(library: PromptLibrary) -> None:
    """Correcting changes mistakes alone: tone, bounds and address are left out, the text is there."""
    brief = _brief("en", Kind.CORRECT, text="He go home.", tone="N1", max_words=22)
    user = library.render(brief, address="formal").user
    assert user.endswith("He go home.")
    assert "N1" not in user
    assert "22" not in user


def test_suggesting_for_a_text_and_for_a_topic_differ(library: PromptLibrary) -> None:
    """With a text its improvement is asked for, without one ideas are."""
    with_text = library.render(Brief("acme", Kind.SUGGEST, "en", instructions="shorter", text="Our bread.")).user
    without = library.render(Brief("acme", Kind.SUGGEST, "en", instructions="a bakery")).user
    assert with_text == "Suggest improvements or alternatives for this text:\nshorter\nOur bread."
    assert without == "Suggest ideas for: a bakery"


@pytest.mark.parametrize("value", ["{{7*7}}", "{% for x in y %}", "{# c #}", "{{ ''.__class__ }}", "{{ undefined }}"])
def test_user_values_are_never_parsed(library: PromptLibrary, value: str) -> None:
    """Template syntax in any field of a brief stays as it is."""
    brief = _brief("de", instructions=value, text=value, tone=value, audience=value, keywords=(value, value))
    assert library.render(brief).user.count(value) == 6


def test_markup_is_not_escaped(library: PromptLibrary) -> None:
    """A prompt is no web page: quotes, ampersands and angle brackets stay."""
    assert "<b>Tom & \"Co\"</b> 'x'" in library.render(_brief("en", instructions="<b>Tom & \"Co\"</b> 'x'")).user


def test_a_language_without_templates_borrows_english_ones(library: PromptLibrary) -> None:
    """Finnish is asked for in English, by name, and the reference says which template it was."""
    prompt = library.render(Brief("acme", Kind.CREATE, "fi", instructions="Kahvi"))
    assert prompt.user == "Write this text: Kahvi\nWrite in suomi (Finnish)."
    assert "Reply only in suomi (Finnish)" in prompt.system
    assert (prompt.ref.version, prompt.ref.kind, prompt.ref.language) == ("v1", "create", "en")


def test_regional_codes_use_their_languages_templates(library: PromptLibrary) -> None:
    """``pt-BR`` is asked for in Portuguese."""
    assert library.render(_brief("pt-BR")).ref.language == "pt"


def _templates(**changes: str) -> TemplateSet:
    texts = {**dict.fromkeys("system create correct suggest translate rewrite".split(), "t"), **changes}
    names = (
        "tone audience keywords min_words max_words word_range formal informal comma write_in forbidden source "
        "alternatives fits_schema examples glossary"
    ).split()
    return TemplateSet(**texts, phrases=Phrases(**dict.fromkeys(names, "p")))


@pytest.mark.parametrize("template", ["{{ instructons }}", "{{ broken", "{% if text %}"])
def test_a_broken_template_is_refused_when_loaded(template: str) -> None:
    """An unknown variable or broken syntax names the template, before any request needs it."""
    with pytest.raises(InvalidConfig) as caught:
        PromptLibrary("v9", {"en": _templates(create=template)})
    assert caught.value.field == "prompts.v9.en.create"


def test_the_sandbox_refuses_to_leave_it() -> None:
    """A template, even one of ours, reaches no internals of Python."""
    library = PromptLibrary("v9", {"en": _templates(create="{{ instructions.__class__.__mro__ }}")})
    with pytest.raises(Exception, match=r"unsafe|undefined"):
        library.render(_brief("en"))


def test_english_is_required() -> None:
    """A library without English has nothing to borrow from."""
    with pytest.raises(InvalidConfig, match="English"):
        PromptLibrary("v9", {"de": _templates()})


def test_an_unknown_version_is_refused() -> None:
    """Loading names what came."""
    with pytest.raises(InvalidConfig, match="v99"):
        PromptLibrary.load("v99")
