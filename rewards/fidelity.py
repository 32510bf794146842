"""Language fidelity: how much of a reply is in the language that was asked for."""

from agent.contract import LanguageContract
from rewards.part import RuleInput
from rewards.score import Ungradable

FIDELITY = "fidelity"


class Fidelity:
    """The share of determined text in the wanted language, by the language contract."""

    name = FIDELITY

    def __init__(self, contract: LanguageContract) -> None:
        self._contract = contract

    def judge(self, given: RuleInput) -> float | Ungradable | None:
        """The share; Ungradable when the contract abstains on the whole reply."""
        verdict = self._contract.judge(given.sample.text, given.sample.brief.language, given.brand_terms)
        if verdict.share is None:
            return Ungradable("too little text to tell its language", judge=self.name)
        return verdict.share
