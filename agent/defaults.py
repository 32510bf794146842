"""What a tenant's settings add to a brief that leaves something open."""

from dataclasses import replace

from agent.brief import Brief, Kind
from agent.config import LanguageSettings


def completed(brief: Brief, settings: LanguageSettings) -> Brief:
    """The brief with the tenant's banned terms beside its own, and with the tenant's bounds of length where it states
    none of its own; a correction has neither.

    A brief's own bound goes before a default that contradicts it.
    """
    if brief.kind is Kind.CORRECT:
        return brief
    terms = dict.fromkeys((*brief.forbidden_terms, *settings.banned_terms))
    return _bounded(replace(brief, forbidden_terms=tuple(terms)), settings)


def _bounded(brief: Brief, settings: LanguageSettings) -> Brief:
    min_words = brief.min_words if brief.min_words is not None else settings.min_words
    max_words = brief.max_words if brief.max_words is not None else settings.max_words
    if min_words is not None and max_words is not None and min_words > max_words:
        return brief
    return replace(brief, min_words=min_words, max_words=max_words)
