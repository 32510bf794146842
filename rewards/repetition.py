"""Repetition: a reply that says the same again and again is worth less."""

import re
from collections import Counter
from collections.abc import Hashable, Sequence

from agent.sentences import split_sentences
from rewards.part import RuleInput
from rewards.words import ngram_size, ngrams, split_words

REPETITION = "repetition"

_STUTTER = re.compile(r"(\S{1,8}?)\1{7,}")
"""The same few characters eight times or more without a space."""


class Repetition:
    """How little of a reply repeats itself."""

    name = REPETITION

    def judge(self, given: RuleInput) -> float:
        """See repetition_value."""
        return repetition_value(given.sample.text)


def repetition_value(text: str) -> float:
    """1 minus the largest repeated share: of sentences (by words), of n-grams, or of characters in a stutter."""
    words = split_words(text)
    sentences = [_sentence(text[span.start : span.end]) for span in split_sentences(text)]
    repeated = (
        _repeated_share(sentences, [len(sentence) for sentence in sentences]),
        _repeated_share(ngrams(words, ngram_size(words))),
        sum(len(stutter.group()) for stutter in _STUTTER.finditer(text)) / max(len(text), 1),
    )
    return 1 - max(repeated)


def _sentence(text: str) -> tuple[str, ...]:
    """A sentence as it is compared: numbers alone make no new one."""
    words = split_words(text)
    return tuple(word for word in words if not word.isdecimal()) or tuple(words)


def _repeated_share(items: Sequence[Hashable], weights: Sequence[int] | None = None) -> float:
    """Weight of items that came before, as a share of all; a first occurrence repeats nothing."""
    seen: Counter[Hashable] = Counter()
    total = repeated = 0
    for item, weight in zip(items, weights or [1] * len(items), strict=True):
        total += weight
        repeated += weight if seen[item] else 0
        seen[item] += 1
    return repeated / total if total else 0.0
