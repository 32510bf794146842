"""What a tenant's settings add to a brief that leaves something open."""

from collections.abc import Mapping
from dataclasses import replace

from agent.brief import Brief, Kind
from agent.config import LanguageSettings

MAX_GLOSSARY_TERMS = 50
"""As many terms of a glossary are told to the model at once."""


def completed(brief: Brief, settings: LanguageSettings) -> Brief:
    """The brief with what the tenant lets stand in other languages, and, but for a correction, with its banned terms
    beside the brief's own, its words for terms that the brief holds, and its bounds of length where the brief states
    none.

    A brief's own bound goes before a default that contradicts it.
    """
    brief = replace(brief, allowance=settings.allowance)
    if brief.kind is Kind.CORRECT:
        return brief
    terms = dict.fromkeys((*brief.forbidden_terms, *settings.banned_terms))
    glossary = _found(settings.glossary, brief)
    return _bounded(replace(brief, forbidden_terms=tuple(terms), glossary=glossary), settings)


def _found(glossary: Mapping[str, str], brief: Brief) -> tuple[tuple[str, str], ...]:
    """Terms that stand in the brief, also as parts of words: languages inflect and compound them. Longest first."""
    if not glossary:
        return ()
    said = "\n".join((brief.text, brief.instructions, *brief.keywords)).casefold()
    found = [(term, wanted) for term, wanted in glossary.items() if term.casefold() in said]
    return tuple(sorted(found, key=lambda pair: -len(pair[0]))[:MAX_GLOSSARY_TERMS])


def _bounded(brief: Brief, settings: LanguageSettings) -> Brief:
    min_words = brief.min_words if brief.min_words is not None else settings.min_words
    max_words = brief.max_words if brief.max_words is not None else settings.max_words
    if min_words is not None and max_words is not None and min_words > max_words:
        return brief
    return replace(brief, min_words=min_words, max_words=max_words)
