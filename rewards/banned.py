"""Banned words: terms that a brief forbids or that its tenant does not want in a language."""

from collections.abc import Sequence

from agent.brief import Kind
from rewards.part import RuleInput
from rewards.terms import find_terms

_NOT_TOLD = frozenset((Kind.CORRECT, Kind.CHAT))
"""A correction changes mistakes alone, and a chat has no template that could say which words are banned."""


class Banned:
    """Whether a reply keeps away from the terms that it must not use."""

    name = "banned"

    def judge(self, given: RuleInput) -> float | None:
        """See banned_value. Absent for corrections and chats, which are not told the terms."""
        brief = given.sample.brief
        terms = (*brief.forbidden_terms, *given.banned_terms)
        if not terms or brief.kind in _NOT_TOLD:
            return None
        return banned_value(given.sample.text, terms, brief.language)


def banned_value(text: str, terms: Sequence[str], language: str) -> float:
    """0 when a term stands in ``text``, inflected or disguised by look-alikes too; else 1."""
    return 0.0 if find_terms(text, terms, language) else 1.0
