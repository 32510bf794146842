"""A reply before it is served: what was sampled, which of it would be served, and whether it is in the language."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.brief import Brief
from agent.completion import Completion
from agent.contract import LanguageContract
from agent.outcome import Outcome
from agent.verdict import LanguageVerdict, Verdict

Reading = Callable[[Sequence[Completion], Sequence[int]], Outcome]
"""The outcome of completions, given the order of their indices, the one to be served first. Raises SchemaNotMet."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The language contract, as it applies to one brief."""

    contract: LanguageContract
    brief: Brief
    brand_terms: tuple[str, ...] = ()

    def of_text(self, text: str) -> LanguageVerdict:
        """The verdict on plain text."""
        return self.contract.judge(text, self.brief.language, self.brand_terms, self.brief.allowance)

    def of(self, outcome: Outcome) -> LanguageVerdict:
        """The verdict on what would be served: of JSON the strings alone."""
        return self.of_text(outcome.prose(self.brief))


@dataclass(frozen=True, slots=True)
class Draft:
    """What would be served now."""

    completions: tuple[Completion, ...]
    """All samples of the brief's prompt."""
    outcome: Outcome
    verdict: LanguageVerdict

    @property
    def failing(self) -> tuple[tuple[int, int], ...]:
        """Spans of the sentences in another language."""
        return tuple((item.start, item.end) for item in self.verdict.sentences if item.verdict is Verdict.FAILED)

    @property
    def share(self) -> float:
        """Share of what was determined that is in the wanted language; 0 when nothing was."""
        return self.verdict.share or 0.0

    @property
    def keeps_contract(self) -> bool:
        """True when the reply passes, as it was sampled or repaired."""
        return self.verdict.verdict in (Verdict.PASS, Verdict.REPAIRED)

    def is_better_than(self, other: "Draft") -> bool:
        """Passing is better than not, then more in the wanted language is. Too little to tell is no better."""
        if self.keeps_contract != other.keeps_contract:
            return self.keeps_contract
        return self.share > other.share
