"""What the gate measures of one held-out reply. A metric that does not apply, or cannot be told, is absent.

    judged      reward · fidelity · line_pass · word_pass · length · repetition · refusal · ungradable
    reported    tokens · tokens_per_s

Knows nothing of policies, prompts or what is done with the numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.completion import Completion
from agent.structure import prose_of
from rewards.agreement import LanguageJudge
from rewards.length import reply_length
from rewards.line_rates import line_pass, word_pass
from rewards.refusals import is_refusal
from rewards.repetition import REPETITION, repetition_value
from rewards.score import Sample, Score, Ungradable


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a reply."""

    name: str
    words: str
    """What it is called in a sentence."""
    judged: bool = True
    lower_is_better: bool = False

    def turned(self, difference: float) -> float:
        """A difference as it is judged: below 0 is worse."""
        return -difference if self.lower_is_better else difference


METRICS = (
    Metric("reward", "reward"),
    Metric("fidelity", "language fidelity"),
    Metric("line_pass", "line pass rate"),
    Metric("word_pass", "word pass rate"),
    Metric("length", "length"),
    Metric("repetition", "repetition"),
    Metric("refusal", "refusal rate", lower_is_better=True),
    Metric("ungradable", "ungradable share", lower_is_better=True),
    Metric("tokens", "tokens", judged=False, lower_is_better=True),
    Metric("tokens_per_s", "tokens per second", judged=False),
)
"""The judged ones are the keys of `tuning.gate.margins`."""
JUDGED = tuple(metric for metric in METRICS if metric.judged)


def measures(
    sample: Sample, completion: Completion, score: Score | Ungradable, judge: LanguageJudge
) -> Mapping[str, float]:
    """Values by METRICS' names of ``completion``, which ``sample`` is made of."""
    found = {
        "ungradable": float(not isinstance(score, Score)),
        "refusal": float(is_refusal(sample.text)),
        "repetition": _repetition(sample.text, score),
        "tokens": float(len(completion.token_ids)),
        **_language(sample, judge),
    }
    if isinstance(score, Score):
        found["reward"] = score.value
    length = reply_length(sample.text, sample.brief)
    if length is not None:
        found["length"] = length
    if completion.timing is not None and completion.timing.inter_token_s:
        found["tokens_per_s"] = 1 / completion.timing.inter_token_s
    return found


def _repetition(text: str, score: Score | Ungradable) -> float:
    """The panel has counted it where it has a weight."""
    known = score.parts.get(REPETITION) if isinstance(score, Score) else None
    return repetition_value(text) if known is None else known


def _language(sample: Sample, judge: LanguageJudge) -> dict[str, float]:
    brief = sample.brief
    text = sample.text if brief.schema is None else prose_of(sample.text)
    verdict = judge.judge(text, brief.language, brief.brand_terms, brief.allowance)
    by_line = line_pass(text, verdict)
    by_word = word_pass(text, brief.language, brief.brand_terms) if by_line else None
    found = {"fidelity": verdict.share, "line_pass": by_line, "word_pass": by_word}
    return {name: float(value) for name, value in found.items() if value is not None}
