"""What policies got in an exam, and one language's pairs of it as arrays.

A pair is two replies, the candidate's and the baseline's, to the same prompt with the same seed. What a test swaps are
prompts or pairs (Sheet.draws, trainer.paired).
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from trainer.measures import JUDGED, METRICS, Metric
from trainer.paired import Values


@dataclass(frozen=True, slots=True)
class GradedReply:
    """What one reply got."""

    prompt: str
    """Digest of the prompt."""
    language: str
    number: int
    """Counts the replies to the prompt, which have the same seeds by every policy."""
    measures: Mapping[str, float]
    """Values by trainer.measures.METRICS' names."""
    text: str | None = None
    """Kept where `tuning.gate.keep_texts` says so, of each prompt's first reply."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What one version got in an exam."""

    version: int
    replies: tuple[GradedReply, ...] = ()
    """Empty for one that an older release recorded."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One language's pairs."""

    language: str
    prompts: tuple[str, ...] = ()
    """Prompt of each pair."""
    ours: Values = field(default_factory=lambda: np.empty((0, len(METRICS))))
    """[pairs, METRICS], the candidate's; NaN where a metric is absent."""
    theirs: Values = field(default_factory=lambda: np.empty((0, len(METRICS))))

    @classmethod
    def of(cls, language: str, candidate: Judged, baseline: Judged) -> "Sheet":
        """The pairs of two policies' replies; empty where they have none in common."""
        known = {(reply.prompt, reply.number): reply for reply in baseline.replies if reply.language == language}
        pairs = [
            (reply, known[reply.prompt, reply.number])
            for reply in candidate.replies
            if reply.language == language and (reply.prompt, reply.number) in known
        ]
        if not pairs:
            return cls(language)
        ours, theirs = (np.array([_row(pair[side]) for pair in pairs]) for side in (0, 1))
        return cls(language, tuple(reply.prompt for reply, _ in pairs), ours, theirs)

    def draws(self, fewest_prompts: int) -> Values:
        """[draws, JUDGED] differences of which below 0 is worse; NaN where a metric has no value on both sides.

        A draw is a prompt, with the mean of its pairs, where there are so many prompts, and otherwise a pair.
        """
        columns = [METRICS.index(metric) for metric in JUDGED]
        signs = np.array([metric.turned(1.0) for metric in JUDGED])
        differences: Values = (self.ours - self.theirs)[:, columns] * signs
        prompts = list(dict.fromkeys(self.prompts))
        if len(prompts) < fewest_prompts:
            return differences
        rows = np.array([prompts.index(prompt) for prompt in self.prompts])
        return np.array([_means(differences[rows == number]) for number in range(len(prompts))])

    def by_prompt(self, metric: Metric) -> Values:
        """[prompts, 2]: means of the candidate's and the baseline's replies, over pairs in which both have a value."""
        column = METRICS.index(metric)
        values: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        for prompt, ours, theirs in zip(self.prompts, self.ours[:, column], self.theirs[:, column], strict=True):
            if not np.isnan(ours - theirs):
                values[prompt].append((ours, theirs))
        return np.array([np.mean(rows, axis=0) for rows in values.values()]).reshape(-1, 2)

    def num_pairs(self, metric: Metric) -> int:
        """Pairs in which both have a value."""
        column = METRICS.index(metric)
        return int(np.sum(~np.isnan(self.ours[:, column] - self.theirs[:, column])))


def _row(reply: GradedReply) -> list[float]:
    return [reply.measures.get(metric.name, np.nan) for metric in METRICS]


def _means(differences: Values) -> Values:
    """[columns] means of [pairs, columns] over what is there; NaN where nothing is."""
    known = ~np.isnan(differences)
    counts = known.sum(axis=0)
    totals = np.where(known, differences, 0.0).sum(axis=0)
    means: Values = np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return means
