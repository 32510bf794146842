"""The language contract's verdict on a reply, sentence by sentence. Judging itself is in agent.contract."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """Whether text is in the wanted language."""

    PASS = "pass"
    REPAIRED = "repaired"
    """It is now, after a sentence was written again or another sample was served; see agent.repair."""
    FAILED = "failed"
    UNDETERMINED = "undetermined"
    """Too little text to say, after noise is stripped, or the detector is unsure."""


def overall(verdicts: Collection[Verdict]) -> Verdict:
    """FAILED when one is, else UNDETERMINED when one is or there is none, else REPAIRED when one is, else PASS."""
    order = (Verdict.FAILED, Verdict.UNDETERMINED, Verdict.REPAIRED, Verdict.PASS)
    return next((verdict for verdict in order if verdict in verdicts), Verdict.UNDETERMINED)


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
    """Share of determined characters that are in the wanted language or let stand beside it, in [0, 1]; None when
    nothing was determined."""
    sentences: tuple[SentenceVerdict, ...]
    words_pass: bool | None = None
    """Whether a reply without a wrong sentence has no English word in it either; None for languages in Latin script,
    and for replies that did not pass."""
