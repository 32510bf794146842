"""What tenants' templates may hold."""

import pytest

from agent.brief import Brief, Example, Kind
from agent.config import PromptOverrides
from agent.own_template import template_flaw
from agent.prompt import PromptLibrary

_GOOD = (
    "Schreibe: {{ instructions }}",
    "{% if tone %}{{ tone | upper }}{% elif not keywords %}-{% else %}{{ text }}{% endif %}",
    "{% for example in examples %}{{ loop.index }}. {{ example.given }}: {{ example.wanted }}{% endfor %}",
    "{{ 'kurz' if max_words == 10 else 'lang' }}",
)


@pytest.fixture(scope="module")
def library() -> PromptLibrary:
    return PromptLibrary.load()


@pytest.mark.parametrize("template", _GOOD)
def test_printing_choosing_and_examples_are_taken(template: str) -> None:
    """Nothing else is needed to say what a brief says."""
    assert template_flaw(template) is None


@pytest.mark.parametrize("template", _GOOD)
def test_what_is_taken_renders_for_a_bare_and_for_a_full_brief(library: PromptLibrary, template: str) -> None:
    """No brief makes a template fail that was accepted."""
    bare = Brief("acme", Kind.CREATE, "de", instructions="I")
    full = Brief(
        "acme",
        Kind.CREATE,
        "de",
        instructions="I",
        text="T",
        tone="N",
        keywords=("K",),
        max_words=10,
        examples=(Example("W", "G"),),
    )
    for brief in (bare, full):
        library.render(brief, overrides=PromptOverrides(create=template))


@pytest.mark.parametrize(
    ("template", "rule"),
    [
        ("{{ broken", "must be a template, got line 1"),
        ("{{ instructons }}", "got instructons"),
        ("{{ instructions * 1000000 }}", "got mul"),
        ("{{ instructions ~ text }}", "got concat"),
        ("{{ range(9) }}", "got range"),
        ("{{ lipsum }}", "got lipsum"),
        ("{{ text.upper() }}", "got call"),
        ("{{ text.__class__ }}", "got .__class__"),
        ("{{ text.given }}", "got .given"),
        ("{{ text[0] }}", "got getitem"),
        ("{{ text | center(1000000000) }}", "got center"),
        ("{{ text | replace('a', 'b') }}", "got replace"),
        ("{% set x = text %}{{ x }}", "got assign"),
        ("{% for word in text %}{{ word }}{% endfor %}", "for example in examples"),
        ("{% for a in examples %}{% for b in examples %}{{ b.given }}{% endfor %}{% endfor %}", "inside of another"),
        ("{% for text in examples %}{{ text.given }}{% endfor %}", "a name of its own"),
        ("{% include 'x' %}", "got include"),
        ("{% macro m() %}{% endmacro %}", "got macro"),
        ("{% if min_words > 3 %}x{% endif %}", "got gt"),
        ("{{ text }}" * 41, "at most 40 times, got 41"),
    ],
)
def test_what_computes_calls_or_defines_is_refused(template: str, rule: str) -> None:
    """A template cannot ask for a billion characters, nor reach what is not the brief's."""
    flaw = template_flaw(template)
    assert flaw is not None
    assert rule in flaw


def test_a_tenants_template_takes_the_place_of_its_kinds(library: PromptLibrary) -> None:
    """The other kinds keep the product's, constraints are said below, and the reference tells the prompts apart."""
    own = PromptOverrides(create="Texte: {{ instructions }}")
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", tone="froh")
    prompt = library.render(brief, overrides=own)
    assert prompt.user == "Texte: Brot\nTonfall: froh."
    assert prompt.system == library.render(brief).system
    assert prompt.ref.version.startswith("v1+")
    assert prompt.ref.version != library.render(brief, overrides=PromptOverrides(create="x")).ref.version
    rewrite = Brief("acme", Kind.REWRITE, "de", text="Brot")
    assert library.render(rewrite, overrides=own) == library.render(rewrite)


def test_a_constraint_that_a_template_says_itself_is_not_said_again(library: PromptLibrary) -> None:
    """One that holds a part of a constraint's values leaves the constraint as it is."""
    brief = Brief("acme", Kind.CREATE, "de", instructions="Brot", tone="froh", min_words=5, max_words=9)
    own = PromptOverrides(system="Firma Acme.", create="{{ tone }}: {{ instructions }}, {{ max_words }}")
    prompt = library.render(brief, overrides=own)
    assert (prompt.system, prompt.user) == ("Firma Acme.", "froh: Brot, 9\nSchreibe 5 bis 9 Wörter.")
