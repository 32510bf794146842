"""Two language detectors that must agree: how the promotion gate tells the language of held-out replies.

The reward's detector is fastText. A policy tuned against one detector may learn its blind spots, so the gate asks two
others, langdetect (character n-grams) and py3langid (byte n-grams), through a language contract each. A sentence counts

    in the language    when one of them says so and the other does not contradict
    in another one     when both say so; when one of them cannot tell the wanted language at all, the other decides
    undetermined       otherwise, and then it says nothing

A failure that needs two witnesses has fewer false alarms than either detector, at the price of what only one can see.
"""

from collections.abc import Sequence
from typing import Protocol

from agent.allowance import NOTHING, Allowance
from agent.contract import LanguageContract
from agent.script import count_letters
from agent.verdict import LanguageVerdict, SentenceVerdict, Verdict


class LanguageJudge(Protocol):
    """Tells sentence by sentence whether a text is in a language; ``agent.contract.LanguageContract`` is one."""

    def judge(
        self, text: str, wanted: str, brand_terms: Sequence[str] = (), allowance: Allowance = NOTHING
    ) -> LanguageVerdict:
        """The verdict on ``text``; spans are those of ``text``."""
        ...


class Agreement:
    """A judge made of two contracts. As safe to share between threads as their detectors."""

    def __init__(self, first: LanguageContract, second: LanguageContract) -> None:
        self._contracts = (first, second)

    def covers(self, language: str) -> bool:
        """True when one of the detectors at least can tell the language."""
        return any(contract.covers(language) for contract in self._contracts)

    def judge(
        self, text: str, wanted: str, brand_terms: Sequence[str] = (), allowance: Allowance = NOTHING
    ) -> LanguageVerdict:
        """See LanguageJudge.judge. A sentence is told by its letters in the share, as the contract weighs it."""
        asked = [contract for contract in self._contracts if contract.covers(wanted)] or [self._contracts[0]]
        verdicts = [contract.judge(text, wanted, brand_terms, allowance) for contract in asked]
        rows = zip(*(verdict.sentences for verdict in verdicts), strict=True)
        sentences = tuple(_agreed(row) for row in rows)
        return LanguageVerdict(wanted, _overall(sentences), _share(text, sentences), sentences)


def _agreed(opinions: Sequence[SentenceVerdict]) -> SentenceVerdict:
    """One sentence's verdict out of one or two."""
    found = {opinion.verdict for opinion in opinions}
    if Verdict.PASS in found and Verdict.FAILED not in found:
        return next(opinion for opinion in opinions if opinion.verdict is Verdict.PASS)
    if found == {Verdict.FAILED}:
        return max(opinions, key=lambda opinion: opinion.confidence)
    return SentenceVerdict(opinions[0].start, opinions[0].end, Verdict.UNDETERMINED, None, 0.0)


def _overall(sentences: Sequence[SentenceVerdict]) -> Verdict:
    """As the contract has it: one failed sentence fails the reply."""
    found = {sentence.verdict for sentence in sentences}
    if Verdict.FAILED in found:
        return Verdict.FAILED
    return Verdict.PASS if Verdict.PASS in found else Verdict.UNDETERMINED


def _share(text: str, sentences: Sequence[SentenceVerdict]) -> float | None:
    """Share of the letters of determined sentences that are in the language; None when none is determined."""
    letters = {Verdict.PASS: 0, Verdict.FAILED: 0}
    for sentence in sentences:
        if sentence.verdict in letters:
            letters[sentence.verdict] += sum(count_letters(text[sentence.start : sentence.end]).values())
    total = sum(letters.values())
    return letters[Verdict.PASS] / total if total else None
