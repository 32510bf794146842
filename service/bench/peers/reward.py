"""The reward of a GRPO comparison: costs what a node's panel costs, and tells any two replies apart.

On random weights every reply is worth the same to the panel (its language cannot be told), and groups without a spread
are not trained on. So the fidelity rule is replaced by a judge that does the same work, sentence by sentence, and then
gives each text a value of its own.
"""

import hashlib
from collections.abc import Sequence

from agent.brief import Brief, Kind
from agent.completion import FinishReason
from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.config import RewardsConfig
from rewards.panel import Panel, build_panel
from rewards.score import Sample, Score, Ungradable

SPREAD = "spread"
REWARDS = RewardsConfig(
    weights={SPREAD: 1.0, "fidelity": 0.0},
    extra={SPREAD: "service.bench.peers.reward:SpreadJudge"},
)
"""`[rewards]` of both sides of a comparison; the other parts weigh their defaults."""


class SpreadJudge:
    """A reward model with a value in [0, 1) per text, after judging the text's language as fidelity does."""

    name = SPREAD
    revision = "1"
    stateless = True
    """As fidelity is, whose place it takes."""

    def __init__(self) -> None:
        self._contract = LanguageContract(FastTextDetector())

    def score(self, samples: Sequence[Sample]) -> list[Score | Ungradable]:
        """See RewardModel.score. Nothing is ungradable."""
        return [Score(self._value(sample), f"{self.name}@{self.revision}") for sample in samples]

    def _value(self, sample: Sample) -> float:
        self._contract.judge(sample.text, sample.brief.language)
        return int.from_bytes(hashlib.sha256(sample.text.encode()).digest()[:6]) / 2**48


class PanelReward:
    """The comparison's reward as a function of texts, in the form that TRL calls."""

    __name__ = "panel"

    def __init__(self) -> None:
        self._panel: Panel = build_panel(REWARDS, (), LanguageContract(FastTextDetector()))

    def __call__(self, completions: Sequence[str], completion_ids: Sequence[Sequence[int]], **_: object) -> list[float]:
        """One reward per completion; an ungradable one counts 0, which here no reply is."""
        brief = Brief("bench", Kind.CREATE, "en", instructions="Write about the sea.")
        samples = [
            Sample(brief, text, FinishReason.LENGTH, len(ids))
            for text, ids in zip(completions, completion_ids, strict=True)
        ]
        return [score.value if isinstance(score, Score) else 0.0 for score in self._panel.score(samples)]
