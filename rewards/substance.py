"""Substance: a reply that is empty, refuses, asks back, parrots its instructions or breaks off has less of it, or none.

Source of the cases: empty replies, refusals, questions instead of answers and copied prompts are the usual ways to
please a language or length judge without doing the work.
"""

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from rewards.part import RuleInput
from rewards.questions import is_question_back
from rewards.refusals import is_refusal
from rewards.templates import template_share
from rewards.words import is_spaced, ngrams, split_words

SUBSTANCE = "substance"

TRUNCATED = 0.8
"""Factor for a reply that hit the token limit."""
_COPIED_FREE = 0.5
"""So much of a reply may come out of its brief, since a good text takes up names and terms."""
_KEPT_ENOUGH = 0.5
"""A correction keeps at least so much of its source: one wrong letter in each word takes half of its triples."""
_FREE_LETTERS = 10
_ALIKE_LENGTH, _OTHER_LENGTH = 0.8, 0.5
"""What stands right takes about as many letters as what stood wrong, some more or fewer in short texts: the shorter of
both is so much of the longer."""
_TEMPLATE_ALL = 0.6
_TEMPLATE_SPAN = 0.5
_COPY_NGRAM = 3
_COPY_LETTERS = 6
_SOURCE_NGRAM = 3


class Substance:
    """Whether a reply does the work that was asked for."""

    name = SUBSTANCE

    def judge(self, given: RuleInput) -> float:
        """See substance_value."""
        return substance_value(given.sample.text, given.sample.brief, given.sample.finish_reason)


def substance_value(text: str, brief: Brief, finish_reason: FinishReason) -> float:
    """0 when empty, a refusal or a question back; else 1, less what is copied (lost, for corrections), times 0.8 when
    cut off.

    What a text to be worked on says itself (a refusal, a question) is no dodge, and in a chat asking back is none.
    """
    if is_empty(text) or _dodges(text, brief):
        return 0.0
    value = _kept(text, brief) if brief.kind is Kind.CORRECT else _own(text, brief)
    value *= _not_the_template(text, brief)
    return value * TRUNCATED if finish_reason is FinishReason.LENGTH else value


def is_empty(text: str) -> bool:
    """True when there is no letter or digit in ``text`` that can be seen."""
    return not any(character.isalnum() and character not in _BLANK_LETTERS for character in text)


_BLANK_LETTERS = frozenset("\u115f\u1160\u3164\uffa0")
"""Fillers of Hangul: letters to Unicode, nothing to a reader."""


def _dodges(text: str, brief: Brief) -> bool:
    source = "" if brief.kind in (Kind.CREATE, Kind.CHAT) else brief.text
    if is_refusal(text) and not is_refusal(source):
        return True
    may_ask = brief.kind is Kind.CHAT or any(mark in source for mark in "?？؟")
    return not may_ask and is_question_back(text) and not is_question_back(source)


def _not_the_template(text: str, brief: Brief) -> float:
    """1 while at most a tenth of the reply is wording of the prompt's template, falling to 0 when six tenths are."""
    return min(1.0, max(0.0, (_TEMPLATE_ALL - template_share(text, brief)) / _TEMPLATE_SPAN))


def _own(text: str, brief: Brief) -> float:
    """1 while at most half of the reply's word triples (six letters, without spaces) stand in the brief, falling to 0
    when all do."""
    words = split_words(text)
    size = _COPY_NGRAM if is_spaced(words) else _COPY_LETTERS
    triples = ngrams(words, size)
    if not triples:
        return 1.0
    given = set(ngrams(split_words(brief.instructions), size)) | set(ngrams(split_words(brief.text), size))
    copied = sum(triple in given for triple in triples) / len(triples)
    return min(1.0, (1 - copied) / (1 - _COPIED_FREE))


def _kept(text: str, brief: Brief) -> float:
    """1 while half of the source's letter triples are still there, falling to 0 when none is; nor is a correction much
    shorter than its source, or longer."""
    source, reply = _letters(brief.text), _letters(text)
    triples = _letter_triples(source)
    if not triples:
        return 1.0
    kept = len(triples & _letter_triples(reply)) / len(triples)
    return min(1.0, kept / _KEPT_ENOUGH, _length_agreement(len(source), len(reply)))


def _length_agreement(ours: int, theirs: int) -> float:
    """1 for about as many letters, falling to 0 when one text is twice as long as the other."""
    shorter, longer = sorted((ours, theirs))
    ratio = min(1.0, (shorter + _FREE_LETTERS) / longer)
    return min(1.0, max(0.0, (ratio - _OTHER_LENGTH) / (_ALIKE_LENGTH - _OTHER_LENGTH)))


def _letters(text: str) -> str:
    return " ".join(split_words(text))


def _letter_triples(letters: str) -> set[str]:
    return {letters[start : start + _SOURCE_NGRAM] for start in range(len(letters) - _SOURCE_NGRAM + 1)}
