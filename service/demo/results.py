"""What the demo saw, for its report. Times are seconds since the demo began."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from service.demo.briefs import DemoBrief
from service.http.inspection_schema import PartView, RequestView
from service.http.tuning_schema import EvaluationView, RunView


@dataclass(frozen=True, slots=True)
class Exchange:
    """One brief that was sent, and the reply."""

    brief: DemoBrief
    sent_s: float
    latency_s: float
    text: str
    verdict: str
    """The reply's language verdict: `pass`, `repaired`, `failed` or `undetermined`."""
    share: float | None
    """Share of determined text in the wanted language."""
    policy_version: int
    request_id: str

    @property
    def done_s(self) -> float:
        return self.sent_s + self.latency_s


@dataclass(frozen=True, slots=True)
class Failure:
    """A brief that got no reply."""

    brief: DemoBrief
    sent_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Flip:
    """The active policy changed: seen at ``at_s``, from then on new requests get ``version``."""

    at_s: float
    version: int
    cause: str
    """`published` or `activated`."""


@dataclass(frozen=True, slots=True)
class SwapRecord:
    """Traffic across the changes of policy."""

    exchanges: tuple[Exchange, ...]
    failures: tuple[Failure, ...]
    flips: tuple[Flip, ...]

    @property
    def replies_by_version(self) -> dict[int, int]:
        """Policy version to the number of its replies."""
        return dict(sorted(Counter(exchange.policy_version for exchange in self.exchanges).items()))

    def first_replies_of(self, version: int) -> dict[DemoBrief, Exchange]:
        """A policy's first reply to each brief that it answered."""
        answered = [exchange for exchange in self.exchanges if exchange.policy_version == version]
        return {exchange.brief: exchange for exchange in reversed(answered)}

    def in_flight_at(self, flip: Flip) -> int:
        """Requests that had been sent and not answered when the policy changed."""
        return sum(exchange.sent_s < flip.at_s < exchange.done_s for exchange in self.exchanges)


@dataclass(frozen=True, slots=True)
class GreedyCheck:
    """One brief, sampled greedily and alone: untuned, tuned, and after the rollback."""

    original: Exchange
    tuned: Exchange
    rolled_back: Exchange


@dataclass(frozen=True, slots=True)
class RewardPair:
    """One brief with what its reply was worth by the untuned policy, and by the tuned one."""

    untuned: RequestView
    tuned: RequestView

    @property
    def parts(self) -> list[tuple[str, float, float | None, float | None]]:
        """Name, weight, value before and value after, of every part that either reply has a value of."""
        before, after = (_values(view.reward.parts) for view in (self.untuned, self.tuned))
        weights = {part.name: part.weight for view in (self.untuned, self.tuned) for part in view.reward.parts}
        return [
            (name, weight, before.get(name), after.get(name))
            for name, weight in weights.items()
            if name in before or name in after
        ]


def _values(parts: Sequence[PartView]) -> dict[str, float]:
    return {part.name: part.value for part in parts if part.value is not None}


@dataclass(frozen=True, slots=True)
class DemoResults:
    """Everything that the report shows."""

    duration_s: float
    replies: tuple[Exchange, ...]
    """Of the untuned model, one per language."""
    run: RunView
    evaluation: EvaluationView
    swap: SwapRecord
    greedy: GreedyCheck
    said: RequestView
    """A reply with its reward, and with what was said of it."""
    rewards: tuple[RewardPair, ...]
    """Of some briefs, with all parts."""

    @property
    def tuned_version(self) -> int:
        return self.run.published[-1]

    @property
    def tuned_replies(self) -> dict[DemoBrief, Exchange]:
        """The tuned policy's first reply to each brief that it answered during the swaps."""
        return self.swap.first_replies_of(self.tuned_version)
