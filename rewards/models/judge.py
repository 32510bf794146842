"""One backbone as a judge: a bounded value for each reply, by the model of the reply's language.

    replies and reference replies ─► token ids ─► raw scores ─► calibrated by language and task ─► centred values

Which language is judged by what is its standing, which whoever loads the models sets: an adapter, the backbone's own
head, or the reason why neither can be asked. A language without a standing is not judged.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.brief import Brief
from agent.language import primary_code
from rewards.models.calibration import IDENTITY, Calibration, centred
from rewards.models.encoding import RewardEncoder
from rewards.models.ports import RawScorer
from rewards.score import Sample, Ungradable
from rewards.words import count_words


@dataclass(frozen=True, slots=True)
class Standing:
    """What judges one language."""

    revision: str
    adapter: str | None = None
    """None is the backbone's own head."""
    calibration: Calibration = IDENTITY


@dataclass(frozen=True, slots=True)
class Broken:
    """A model that should judge and cannot: its replies are ungradable, with this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Standings:
    """Of all languages."""

    by_language: Mapping[str, Standing | Broken] = field(default_factory=dict)
    otherwise: Standing | Broken | None = None
    """Of languages that are not named; None judges none of them."""

    def of(self, language: str) -> Standing | Broken | None:
        """Of an ISO 639-1 code."""
        return self.by_language.get(language, self.otherwise)


class Judge:
    """One backbone. Threads may share it; ``standings`` and ``max_tokens`` may be set at any time."""

    def __init__(self, backbone: str, encoder: RewardEncoder, scorer: RawScorer, *, max_tokens: int) -> None:
        self.backbone = backbone
        self.standings = Standings()
        self._encoder = encoder
        self._scorer = scorer
        self.max_tokens = max_tokens
        """Longest conversation, brief and reply together."""

    def values(
        self, samples: Sequence[Sample], *, within_s: float | None = None
    ) -> list[tuple[float, str] | Ungradable | None]:
        """Of each sample its value in [−1, 1] with the revision that judged it; None where none does.

        Raises as RawScorer.raw_scores does.
        """
        standings = self.standings
        languages = [primary_code(sample.brief.language) for sample in samples]
        answers: list[tuple[float, str] | Ungradable | None] = [None] * len(samples)
        for language in dict.fromkeys(languages):
            standing = standings.of(language)
            if standing is None:
                continue
            chosen = [index for index, other in enumerate(languages) if other == language]
            found = self._judged([samples[index] for index in chosen], standing, within_s)
            for index, answer in zip(chosen, found, strict=True):
                answers[index] = answer
        return answers

    def raw_scores(
        self, replies: Sequence[tuple[Brief, str]], standing: Standing, *, within_s: float | None = None
    ) -> list[float | Ungradable]:
        """The model's own score of each reply; Ungradable for what is too long, cannot be encoded or is not finite.

        Raises as RawScorer.raw_scores does.
        """
        rows = [self._row(brief, text) for brief, text in replies]
        readable = [row for row in rows if not isinstance(row, Ungradable)]
        if not readable:
            return [row for row in rows if isinstance(row, Ungradable)]
        raws = self._scorer.raw_scores(self.backbone, standing.adapter, readable, within_s=within_s)
        rest = iter(raws)
        return [row if isinstance(row, Ungradable) else self._finite(next(rest)) for row in rows]

    def _judged(
        self, samples: Sequence[Sample], standing: Standing | Broken, within_s: float | None
    ) -> list[tuple[float, str] | Ungradable]:
        """Of samples of one language."""
        if isinstance(standing, Broken):
            return [Ungradable(standing.reason, self.backbone)] * len(samples)
        texts = dict.fromkeys((sample.brief, sample.text) for sample in samples)
        texts |= dict.fromkeys((item.brief, item.reference) for item in samples if item.reference is not None)
        raws = self.raw_scores(list(texts), standing, within_s=within_s)
        standards = {
            key: raw if isinstance(raw, Ungradable) else _standard(raw, key, standing.calibration)
            for key, raw in zip(texts, raws, strict=True)
        }
        return [_value(sample, standards, standing.revision) for sample in samples]

    def _row(self, brief: Brief, text: str) -> list[int] | Ungradable:
        try:
            row = self._encoder.encode(brief, text)
        except ValueError as error:
            return Ungradable(str(error), self.backbone)
        if len(row) > self.max_tokens:
            return Ungradable(f"brief and reply must fit {self.max_tokens} tokens, got {len(row)}", self.backbone)
        return row

    def _finite(self, raw: float) -> float | Ungradable:
        return raw if math.isfinite(raw) else Ungradable(f"the score must be finite, got {raw}", self.backbone)


def _standard(raw: float, reply: tuple[Brief, str], calibration: Calibration) -> float:
    brief, text = reply
    return calibration.standard(raw, kind=brief.kind.value, num_words=count_words(text))


def _value(
    sample: Sample, standards: Mapping[tuple[Brief, str], float | Ungradable], revision: str
) -> tuple[float, str] | Ungradable:
    """Centred on the reference; on the calibration's mean when there is none or it cannot be graded."""
    standard = standards[sample.brief, sample.text]
    if isinstance(standard, Ungradable):
        return standard
    reference = None if sample.reference is None else standards[sample.brief, sample.reference]
    return centred(standard, reference if isinstance(reference, float) else 0.0), revision
