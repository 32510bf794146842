"""What a tenant's settings add to a brief that leaves something open."""

from dataclasses import replace

from agent.brief import Brief, Kind
from agent.config import LanguageSettings


def completed(brief: Brief, settings: LanguageSettings) -> Brief:
    """The brief with the tenant's bounds of length where it states none of its own; a correction has none.

    A brief's own bound goes before a default that contradicts it.
    """
    if brief.kind is Kind.CORRECT:
        return brief
    min_words = brief.min_words if brief.min_words is not None else settings.min_words
    max_words = brief.max_words if brief.max_words is not None else settings.max_words
    if min_words is not None and max_words is not None and min_words > max_words:
        return brief
    return replace(brief, min_words=min_words, max_words=max_words)
