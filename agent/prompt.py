"""Prompts: versioned templates per kind and language, rendered in a sandbox.

A template is written in its own language, so that the model is spoken to in the language that it has to answer in. User
values reach a template as variables and are never parsed as one. Knows no tokens; chat markup is the encoder's.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Literal

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import ValidationError

from agent.brief import Brief, Kind
from agent.config import Section
from agent.episode import PromptRef
from agent.errors import InvalidConfig
from agent.language import find_language, primary_code

Address = Literal["formal", "informal"]

VERSION = "v1"
"""The template set in use."""

_FALLBACK = "en"


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


class PromptLibrary:
    """The templates of one version, by language. A language without templates borrows the English ones."""

    def __init__(self, version: str, templates: Mapping[str, TemplateSet]) -> None:
        """Templates by ISO 639-1 code.

        Raises:
            InvalidConfig: English is missing or does not name the language to write in, or a template does not parse.
        """
        self._version = version
        self._templates = dict(templates)
        self._environment = ImmutableSandboxedEnvironment(
            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
        )
        if _FALLBACK not in self._templates or self._templates[_FALLBACK].phrases.write_in is None:
            raise InvalidConfig(
                f"prompts.{version}.{_FALLBACK}", "English templates with phrases.write_in are required"
            )
        self._compiled: dict[str, Template] = {}
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

    def render(self, brief: Brief, *, address: Address | None = None) -> Prompt:
        """The prompt of a brief of any kind but ``chat``. ``address`` says how readers are addressed, unless the brief
        does; ``correct`` ignores it like every wish.
        """
        language = primary_code(brief.language)
        template = language if language in self._templates else _FALLBACK
        template_set = self._templates[template]
        values = _values(brief, template_set.phrases.comma, borrows=template != language)
        lines = [self._render(_body(template_set, brief.kind), values)]
        lines += [self._render(phrase, values) for phrase in _wishes(template_set.phrases, brief, address)]
        if template != language and template_set.phrases.write_in is not None:
            lines.append(self._render(template_set.phrases.write_in, values))
        system = self._render(template_set.system, values)
        return Prompt(system, "\n".join(lines), PromptRef(self._version, brief.kind.value, template))

    def _render(self, template: str, values: Mapping[str, object]) -> str:
        return self._compiled[template].render(values).strip()

    def _compile(self, language: str, template_set: TemplateSet) -> None:
        texts = {**template_set.model_dump(exclude={"phrases"}), **template_set.phrases.model_dump(exclude_none=True)}
        for key, text in texts.items():
            field = f"prompts.{self._version}.{language}.{key}"
            try:
                unknown = find_undeclared_variables(self._environment.parse(text)) - _VARIABLES
                self._compiled[text] = self._environment.from_string(text)
            except TemplateError as error:
                raise InvalidConfig(field, f"must be a template: {error}") from error
            if unknown:
                raise InvalidConfig(field, f"may use {', '.join(sorted(_VARIABLES))}, got {', '.join(sorted(unknown))}")


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
        "source": _language_name(brief.source_language or "", borrows=borrows),
        "alternatives": brief.num_alternatives,
        "schema": brief.schema,
        "examples": [{"given": example.given.strip(), "wanted": example.wanted.strip()} for example in brief.examples],
    }


_VARIABLES = frozenset(
    """
    language instructions text tone audience keywords min_words max_words forbidden source alternatives schema examples
    """.split()
)
"""What a template may use."""


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
