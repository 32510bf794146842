"""Language fidelity: how much of a reply is in the language that was asked for."""

from agent.contract import LanguageContract
from agent.structure import prose_of
from rewards.part import RuleInput
from rewards.score import Ungradable

FIDELITY = "fidelity"


class Fidelity:
    """The share of determined text in the wanted language, or let stand beside it by the brief's allowance."""

    name = FIDELITY

    def __init__(self, contract: LanguageContract) -> None:
        self._contract = contract

    def judge(self, given: RuleInput) -> float | Ungradable | None:
        """The share; Ungradable when the contract abstains on the whole reply."""
        brief = given.sample.brief
        text = given.sample.text if brief.schema is None else prose_of(given.sample.text)
        verdict = self._contract.judge(text, brief.language, given.brand_terms, brief.allowance)
        if verdict.share is None:
            return Ungradable("too little text to tell its language", judge=self.name)
        return verdict.share
