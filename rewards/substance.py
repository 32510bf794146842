"""Substance: a reply that is empty, refuses, parrots its instructions or breaks off has less of it, or none.

Source of the cases: empty replies, refusals and copied prompts are the usual ways to please a language or length judge
without doing the work.
"""

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from rewards.part import RuleInput
from rewards.refusals import is_refusal
from rewards.words import ngrams, split_words

SUBSTANCE = "substance"

TRUNCATED = 0.8
"""Factor for a reply that hit the token limit."""
_COPIED_FREE = 0.5
"""So much of a reply may come out of its brief, since a good text takes up names and terms."""
_KEPT_ENOUGH = 0.5
"""A correction keeps at least so much of its source."""
_COPY_NGRAM = 3
_SOURCE_NGRAM = 3


class Substance:
    """Whether a reply does the work that was asked for."""

    name = SUBSTANCE

    def judge(self, given: RuleInput) -> float:
        """See substance_value."""
        return substance_value(given.sample.text, given.sample.brief, given.sample.finish_reason)


def substance_value(text: str, brief: Brief, finish_reason: FinishReason) -> float:
    """0 when empty or a refusal; else 1, less what is copied (lost, for corrections), times 0.8 when cut off."""
    if is_empty(text) or is_refusal(text):
        return 0.0
    value = _kept(text, brief) if brief.kind is Kind.CORRECT else _own(text, brief)
    return value * TRUNCATED if finish_reason is FinishReason.LENGTH else value


def is_empty(text: str) -> bool:
    """True when there is no letter or digit in ``text``."""
    return not any(map(str.isalnum, text))


def _own(text: str, brief: Brief) -> float:
    """1 while at most half of the reply's word triples stand in the brief, falling to 0 when all do."""
    triples = ngrams(split_words(text), _COPY_NGRAM)
    if not triples:
        return 1.0
    given = set(ngrams(split_words(brief.instructions), _COPY_NGRAM)) | set(
        ngrams(split_words(brief.text), _COPY_NGRAM)
    )
    copied = sum(triple in given for triple in triples) / len(triples)
    return min(1.0, (1 - copied) / (1 - _COPIED_FREE))


def _kept(text: str, brief: Brief) -> float:
    """1 while half of the source's letter triples are still there, falling to 0 when none is."""
    source, reply = _letter_triples(brief.text), _letter_triples(text)
    if not source:
        return 1.0
    return min(1.0, len(source & reply) / len(source) / _KEPT_ENOUGH)


def _letter_triples(text: str) -> set[str]:
    letters = " ".join(split_words(text))
    return {letters[start : start + _SOURCE_NGRAM] for start in range(len(letters) - _SOURCE_NGRAM + 1)}
