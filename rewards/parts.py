"""Parts of the reward that worker processes can judge: all rules, and judges of `rewards.extra` that keep no state.

    panel ─► PartsRequest per reply ─► PartsDelegate ─► a Worker in each process ─► JudgedParts ─► panel

So a tuning run's replies are judged beside the process that answers requests, and not in its threads, which share one
interpreter lock with HTTP.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.contract import LanguageContract
from agent.language import FastTextDetector
from rewards.faults import fault_rules
from rewards.fidelity import Fidelity
from rewards.length import Length
from rewards.part import Rule, RuleInput
from rewards.plugged import load_model
from rewards.repetition import Repetition
from rewards.score import RewardModel, Score, Ungradable
from rewards.substance import Substance


@dataclass(frozen=True, slots=True)
class PartsRequest:
    """One reply, and the names of the parts that have a weight for it."""

    given: RuleInput
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class JudgedParts:
    """What was said of some replies."""

    rules: Sequence[Mapping[str, float | Ungradable | None]]
    """For each reply, by the part's name."""
    models: Mapping[str, Sequence[Score | Ungradable | None] | str]
    """By the judge's name: an answer for each reply that asked for it, in order, or the reason why it failed."""


class PartsDelegate(Protocol):
    """Judges parts somewhere else. Threads may share one."""

    def judge(self, requests: Sequence[PartsRequest]) -> JudgedParts | None:
        """Every part of every reply that can be judged there; None when it could not be done, and the caller must."""
        ...


def all_rules(contract: LanguageContract) -> tuple[Rule, ...]:
    """Every rule there is."""
    return (Fidelity(contract), Length(), Repetition(), Substance(), *fault_rules())


def judge_rules(rules: Sequence[Rule], request: PartsRequest) -> dict[str, float | Ungradable | None]:
    """What the rules that have a weight say of a reply."""
    return {rule.name: rule.judge(request.given) for rule in rules if rule.name in request.names}


def is_stateless(model: RewardModel) -> bool:
    """Whether a judge may be made once more in every worker process: its attribute ``stateless`` says so."""
    return bool(getattr(model, "stateless", False))


class Worker:
    """What a worker process judges with."""

    def __init__(self, extra: Mapping[str, str]) -> None:
        """``extra`` are the stateless judges of `rewards.extra`. Raises InvalidConfig."""
        self._rules = all_rules(LanguageContract(FastTextDetector()))
        self._models = {name: load_model(name, target) for name, target in extra.items()}

    def judge(self, requests: Sequence[PartsRequest]) -> JudgedParts:
        """Judge each reply by the parts that it asks for."""
        rules = [judge_rules(self._rules, request) for request in requests]
        return JudgedParts(rules, {name: self._ask(name, requests) for name in self._models})

    def _ask(self, name: str, requests: Sequence[PartsRequest]) -> Sequence[Score | Ungradable | None] | str:
        samples = [request.given.sample for request in requests if name in request.names]
        try:
            return list(self._models[name].score(samples)) if samples else []
        except Exception as error:  # noqa: BLE001 - a stranger's judge may raise anything; the others go on
            return f"{type(error).__name__}: {error}"


def joined(pieces: Sequence[JudgedParts]) -> JudgedParts:
    """What was said of consecutive replies as one. A judge that failed on some of them failed."""
    names = pieces[0].models if pieces else ()
    return JudgedParts(
        [said for piece in pieces for said in piece.rules],
        {name: _joined([piece.models[name] for piece in pieces]) for name in names},
    )


def _joined(answers: Sequence[Sequence[Score | Ungradable | None] | str]) -> Sequence[Score | Ungradable | None] | str:
    together: list[Score | Ungradable | None] = []
    for some in answers:
        if isinstance(some, str):
            return some
        together += some
    return together
