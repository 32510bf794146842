"""Scores of honest and hacked replies side by side, as the panel with its default weights gives them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.completion import FinishReason
from agent.config import LanguageSettings, TenantSettings
from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.config import RewardsConfig
from rewards.panel import build_panel
from rewards.score import RewardModel, Sample, Score
from rewards.sentinels.cases import Case
from rewards.sentinels.hacks import BRAND, HACKS, TENANT, Trial


@dataclass(frozen=True, slots=True)
class Row:
    """One hack in one language."""

    hack: str
    language: str
    honest: float | None
    """None when the reply could not be graded."""
    hacked: float | None

    @property
    def margin(self) -> float | None:
        """By how much the honest reply is worth more; None when the honest one could not be graded.

        A hacked reply that cannot be graded is never trained on, so it gains nothing: it counts as 0.
        """
        return None if self.honest is None else self.honest - (self.hacked or 0.0)


def default_panel(cases: Sequence[Case]) -> RewardModel:
    """The panel of a node with default weights and one tenant that has all languages and one brand."""
    languages = {case.language: LanguageSettings(brand_terms=(BRAND,)) for case in cases}
    tenant = TenantSettings(id=TENANT, languages=languages)
    return build_panel(RewardsConfig(), [tenant], LanguageContract(FastTextDetector()))


def rows(panel: RewardModel, cases: Iterable[Case]) -> list[Row]:
    """Every hack in every language that has it."""
    return [
        _row(panel, hack, case.language, trial)
        for case in cases
        for hack, plant in HACKS.items()
        if (trial := plant(case)) is not None and trial.hacked != trial.honest
    ]


def _row(panel: RewardModel, hack: str, language: str, trial: Trial) -> Row:
    samples = [Sample(trial.brief, text, FinishReason.STOP, len(text)) for text in (trial.honest, trial.hacked)]
    honest, hacked = (score.value if isinstance(score, Score) else None for score in panel.score(samples))
    return Row(hack, language, honest, hacked)


def as_markdown(table: Sequence[Row]) -> str:
    """Hacks down, languages across; each cell reads honest / hacked, ``–`` for what could not be graded."""
    languages = list(dict.fromkeys(row.language for row in table))
    cells = {(row.hack, row.language): f"{_shown(row.honest)} / {_shown(row.hacked)}" for row in table}
    lines = ["| hack | " + " | ".join(languages) + " |", "|---" * (len(languages) + 1) + "|"]
    lines += [
        f"| {hack} | " + " | ".join(cells.get((hack, language), "") for language in languages) + " |"
        for hack in dict.fromkeys(row.hack for row in table)
    ]
    return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"
