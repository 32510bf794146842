"""Prompts: versioned templates per kind and language, rendered in a sandbox, a tenant's own among them.

A template is written in its own language, so that the model is spoken to in the language that it has to answer in. User
values reach a template as variables and are never parsed as one. Knows no tokens; chat markup is the encoder's.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

from jinja2 import Template, TemplateError
from jinja2.meta import find_undeclared_variables
from pydantic import ValidationError

from agent.brief import Brief, Kind
from agent.config import PRODUCT_PROMPTS, PromptOverrides, Section
from agent.episode import PromptRef
from agent.errors import InvalidConfig
from agent.language import find_language, primary_code
from agent.own_template import VARIABLES, template_environment

Address = Literal["formal", "informal"]

VERSION = "v1"
"""The template set in use."""

_FALLBACK = "en"
_OWN_TEMPLATES_KEPT = 1_000


class Phrases(Section):
    """Sentences that state a brief's constraints."""

    tone: str
    audience: str
    keywords: str
    min_words: str
    max_words: str
    word_range: str
    """Both bounds in one sentence."""
    formal: str
    informal: str
    comma: str
    """What separates keywords."""
    write_in: str | None = None
    """Names the language to write in; said when a language without templates borrows these."""
    forbidden: str
    glossary: str
    source: str
    """Names the language that a translation starts from."""
    alternatives: str
    fits_schema: str
    examples: str


class TemplateSet(Section):
    """The templates of one language."""

    system: str
    create: str
    correct: str
    suggest: str
    translate: str
    rewrite: str
    phrases: Phrases


@dataclass(frozen=True, slots=True)
class Prompt:
    """A system and a user message, and which template they come from."""

    system: str
    user: str
    ref: PromptRef


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A template, ready to render, with the variables that it uses."""

    template: Template
    variables: frozenset[str]

    def render(self, values: Mapping[str, object]) -> str:
        return self.template.render(values).strip()


class PromptLibrary:
    """The templates of one version, by language. A language without templates borrows the English ones."""

    def __init__(self, version: str, templates: Mapping[str, TemplateSet]) -> None:
        """Templates by ISO 639-1 code.

        Raises:
            InvalidConfig: English is missing or does not name the language to write in, or a template does not parse.
        """
        self._version = version
        self._templates = dict(templates)
        self._environment = template_environment()
        if _FALLBACK not in self._templates or self._templates[_FALLBACK].phrases.write_in is None:
            raise InvalidConfig(
                f"prompts.{version}.{_FALLBACK}", "English templates with phrases.write_in are required"
            )
        self._compiled: dict[str, _Compiled] = {}
        self._own = lru_cache(maxsize=_OWN_TEMPLATES_KEPT)(self._parsed)
        for language, template_set in self._templates.items():
            self._compile(language, template_set)

    @classmethod
    def load(cls, version: str = VERSION) -> "PromptLibrary":
        """The templates that ship with the package.

        Raises:
            InvalidConfig: there is no such version, or one of its files breaks a rule.
        """
        folder = files("agent") / "prompts" / version
        if not folder.is_dir():
            raise InvalidConfig("prompts", f"a version must name a folder of templates, got {version!r}")
        paths = sorted((path for path in folder.iterdir() if path.name.endswith(".toml")), key=lambda path: path.name)
        return cls(version, {path.name.removesuffix(".toml"): _read(path, version) for path in paths})

    @property
    def languages(self) -> frozenset[str]:
        """Codes of the languages with templates of their own."""
        return frozenset(self._templates)

    def render(
        self, brief: Brief, *, address: Address | None = None, overrides: PromptOverrides = PRODUCT_PROMPTS
    ) -> Prompt:
        """The prompt of a brief of any kind but ``chat``. ``address`` says how readers are addressed, unless the brief
        does; ``correct`` ignores it like every wish.

        Templates of a tenant's own (``overrides``) take the place of the kind's and of the system message. The brief's
        constraints are said below them by the product's phrases, but for those whose variable they hold themselves.
        """
        language = primary_code(brief.language)
        template = language if language in self._templates else _FALLBACK
        template_set = self._templates[template]
        values = _values(brief, template_set.phrases.comma, borrows=template != language)
        own_body = _own_body(overrides, brief.kind)
        body = self._template(own_body or _body(template_set, brief.kind))
        told = body.variables if own_body else frozenset()
        wishes = map(self._template, _wishes(template_set.phrases, brief, address))
        parts = [body, *(wish for wish in wishes if not wish.variables or not wish.variables <= told)]
        if template != language and template_set.phrases.write_in is not None:
            parts.append(self._template(template_set.phrases.write_in))
        system = self._template(overrides.system or template_set.system).render(values)
        version = _version_with(self._version, overrides.system, own_body)
        user = "\n".join(part.render(values) for part in parts)
        return Prompt(system, user, PromptRef(version, brief.kind.value, template))

    def _template(self, text: str) -> "_Compiled":
        """One of the product's, or a tenant's, which was checked when it was configured."""
        return self._compiled.get(text) or self._own(text)

    def _parsed(self, text: str) -> "_Compiled":
        variables = frozenset(find_undeclared_variables(self._environment.parse(text)))
        return _Compiled(self._environment.from_string(text), variables)

    def _compile(self, language: str, template_set: TemplateSet) -> None:
        texts = {**template_set.model_dump(exclude={"phrases"}), **template_set.phrases.model_dump(exclude_none=True)}
        for key, text in texts.items():
            field = f"prompts.{self._version}.{language}.{key}"
            try:
                self._compiled[text] = self._parsed(text)
            except TemplateError as error:
                raise InvalidConfig(field, f"must be a template: {error}") from error
            if unknown := self._compiled[text].variables - VARIABLES:
                raise InvalidConfig(field, f"may use {', '.join(sorted(VARIABLES))}, got {', '.join(sorted(unknown))}")


def read_templates(language: str) -> tuple[str, ...]:
    """The texts of a language's shipped templates in use, as they are written; the English ones where it has none."""
    folder = files("agent") / "prompts" / VERSION
    path = folder / f"{primary_code(language)}.toml"
    template_set = _read(path if path.is_file() else folder / f"{_FALLBACK}.toml", VERSION)
    phrases = template_set.phrases.model_dump(exclude={"comma"}, exclude_none=True)
    return (*template_set.model_dump(exclude={"phrases"}).values(), *phrases.values())


def _read(path: Traversable, version: str) -> TemplateSet:
    try:
        return TemplateSet.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise InvalidConfig(f"prompts.{version}.{path.name}", f"must hold one language's templates: {error}") from error


def _body(template_set: TemplateSet, kind: Kind) -> str:
    bodies = {
        Kind.CREATE: template_set.create,
        Kind.CORRECT: template_set.correct,
        Kind.SUGGEST: template_set.suggest,
        Kind.TRANSLATE: template_set.translate,
        Kind.REWRITE: template_set.rewrite,
    }
    return bodies[kind]


def _own_body(overrides: PromptOverrides, kind: Kind) -> str | None:
    bodies = {
        Kind.CREATE: overrides.create,
        Kind.CORRECT: overrides.correct,
        Kind.SUGGEST: overrides.suggest,
        Kind.TRANSLATE: overrides.translate,
        Kind.REWRITE: overrides.rewrite,
    }
    return bodies[kind]


def _version_with(version: str, *own: str | None) -> str:
    """``v1+3f2a9c01`` for prompts that hold templates of a tenant's own, by what those say."""
    if not any(own):
        return version
    return f"{version}+{hashlib.sha256(repr(own).encode()).hexdigest()[:8]}"


def _values(brief: Brief, comma: str, *, borrows: bool) -> dict[str, object]:
    return {
        "language": _language_name(brief.language, borrows=borrows),
        "instructions": brief.instructions.strip(),
        "text": brief.text.strip(),
        "tone": brief.tone,
        "audience": brief.audience,
        "keywords": comma.join(brief.keywords),
        "min_words": brief.min_words,
        "max_words": brief.max_words,
        "forbidden": comma.join(brief.forbidden_terms),
        "glossary": comma.join(f"{term} → {wanted}" for term, wanted in brief.glossary),
        "source": _language_name(brief.source_language or "", borrows=borrows),
        "alternatives": brief.num_alternatives,
        "schema": brief.schema,
        "examples": [{"given": example.given.strip(), "wanted": example.wanted.strip()} for example in brief.examples],
    }


def _language_name(tag: str, *, borrows: bool) -> str:
    """``suomi (Finnish)`` in borrowed English templates, the native name alone otherwise."""
    language = find_language(tag)
    if language is None:
        return tag
    return f"{language.native_name} ({language.name})" if borrows else language.native_name


def _wishes(phrases: Phrases, brief: Brief, address: Address | None) -> list[str]:
    """Templates of the constraints that the brief states. A correction changes mistakes alone, so it has none."""
    if brief.kind is Kind.CORRECT:
        return []
    address = brief.register or address
    wishes = [
        (brief.source_language, phrases.source),
        (brief.tone, phrases.tone),
        (brief.audience, phrases.audience),
        (brief.keywords, phrases.keywords),
        (brief.forbidden_terms, phrases.forbidden),
        (brief.glossary, phrases.glossary),
        (address == "formal", phrases.formal),
        (address == "informal", phrases.informal),
    ]
    stated = [template for wished, template in wishes if wished] + _bounds(phrases, brief)
    shapes = [
        (brief.num_alternatives, phrases.alternatives),
        (brief.examples, phrases.examples),
        (brief.schema, phrases.fits_schema),
    ]
    return stated + [template for wished, template in shapes if wished]


def _bounds(phrases: Phrases, brief: Brief) -> list[str]:
    if brief.min_words is not None and brief.max_words is not None:
        return [phrases.word_range]
    if brief.min_words is not None:
        return [phrases.min_words]
    return [phrases.max_words] if brief.max_words is not None else []
