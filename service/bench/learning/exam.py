"""How a policy's replies to held-out prompts are judged: the reward, its parts, the gate's own detector.

Substance is judged too and not rewarded: a policy that copies its prompt pleases all judges that are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.brief import Brief
from agent.completion import FinishReason
from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.config import RewardsConfig
from rewards.panel import build_panel
from rewards.score import RewardModel, Sample, Score
from rewards.second_opinion import LangdetectDetector
from rewards.substance import SUBSTANCE, substance_value
from service.bench.learning.fluency import FLUENCY

GATE_FIDELITY = "gate_fidelity"
"""Share of a reply in the wanted language by the gate's detector, which the reward does not know."""


@dataclass(frozen=True, slots=True)
class Graded:
    """One reply to one held-out prompt."""

    prompt: int
    """Index of its prompt in the exam."""
    language: str
    kind: str
    reward: float | None
    """None when it could not be graded."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Parts of the reward, ``gate_fidelity`` and ``substance``; those that could not be told are absent."""
    num_tokens: int = 0
    truncated: bool = False
    text: str = ""


def reward_config(*, fluency: bool) -> RewardsConfig:
    """Language fidelity, repetition, length and, when wanted, fluency; less what faults cost."""
    weights = {SUBSTANCE: 0.0}
    if not fluency:
        return RewardsConfig(weights=weights)
    return RewardsConfig(
        weights={**weights, FLUENCY: 0.5}, extra={FLUENCY: "service.bench.learning.fluency:FluencyJudge"}
    )


class Examiner:
    """Grades replies. Not for several threads at once."""

    def __init__(self, judge: RewardModel, second_opinion: LanguageContract) -> None:
        """``judge`` is the reward; ``second_opinion`` the gate's contract."""
        self.judge = judge
        self._second_opinion = second_opinion

    @classmethod
    def of(cls, config: RewardsConfig) -> "Examiner":
        """With a node's panel and the gate's detector."""
        panel = build_panel(config, (), LanguageContract(FastTextDetector()))
        return cls(panel, LanguageContract(LangdetectDetector()))

    def grade(self, numbers: Sequence[int], samples: Sequence[Sample]) -> list[Graded]:
        """Grade replies to the prompts of these numbers."""
        scores = self.judge.score(samples)
        return [
            self._graded(number, sample, score if isinstance(score, Score) else None)
            for number, sample, score in zip(numbers, samples, scores, strict=True)
        ]

    def _graded(self, number: int, sample: Sample, score: Score | None) -> Graded:
        brief = sample.brief
        parts = {**(score.parts if score is not None else {})}
        parts[SUBSTANCE] = substance_value(sample.text, brief, sample.finish_reason)
        share = self._second_opinion.judge(sample.text, brief.language, brief.brand_terms).share
        if share is not None:
            parts[GATE_FIDELITY] = share
        return Graded(
            prompt=number,
            language=brief.language,
            kind=brief.kind.value,
            reward=None if score is None else score.value,
            parts=parts,
            num_tokens=sample.num_tokens,
            truncated=sample.finish_reason is FinishReason.LENGTH,
            text=sample.text,
        )


def reply_sample(brief: Brief, text: str, num_tokens: int, *, truncated: bool) -> Sample:
    """A reply as the judges see it."""
    return Sample(brief, text, FinishReason.LENGTH if truncated else FinishReason.STOP, num_tokens)
