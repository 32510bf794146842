"""The language contract's verdict on a reply, sentence by sentence. Judging itself is in agent.contract."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Whether text is in the wanted language."""

    PASS = "pass"
    FAILED = "failed"
    UNDETERMINED = "undetermined"
    """Too little text to say, after noise is stripped, or the detector is unsure."""


def overall(verdicts: Collection[Verdict]) -> Verdict:
    """FAILED when one is, PASS when all are, else UNDETERMINED."""
    if Verdict.FAILED in verdicts:
        return Verdict.FAILED
    return Verdict.PASS if verdicts and set(verdicts) == {Verdict.PASS} else Verdict.UNDETERMINED


@dataclass(frozen=True, slots=True)
class SentenceVerdict:
    """The verdict on ``reply[start:end]``."""

    start: int
    end: int
    verdict: Verdict
    language: str | None
    """Detected ISO 639-1 code; None when undetermined."""
    confidence: float
    """Detector's probability of ``language``; 0.0 when undetermined."""


@dataclass(frozen=True, slots=True)
class LanguageVerdict:
    """The verdict on a whole reply."""

    wanted: str
    verdict: Verdict
    share: float | None
    """Share of determined characters that are in the wanted language, in [0, 1]; None when nothing was determined."""
    sentences: tuple[SentenceVerdict, ...]
