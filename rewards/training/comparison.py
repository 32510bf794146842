"""The gate of reward models: is a candidate better than the model it would replace, or than chance?

Both judge the same held-out pairs. A prompt has one vote, however many pairs came from it, since pairs of one prompt
go right or wrong together: the candidate wins it when it ranks a greater share of its pairs right, and a tie is no
vote. The test is an exact one-sided sign test of the votes,

    p = P(X >= wins),   X ~ Binomial(wins + losses, 1/2)

With one pair for each prompt this is McNemar's exact test (McNemar 1947). Without a model to replace, the candidate is
compared with chance: it wins a prompt when it ranks more than half of its pairs right.

An equal candidate has no votes, so p = 1 and it is rejected: a model that changes nothing is not worth a change.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.training.scored import ScoredPair, by_prompt, share_right

CHANCE = 0.5
"""The share that a coin ranks right."""


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Whether a candidate may be activated, and why."""

    accepted: bool
    baseline: int | None
    """Version of the model that it would replace; None when it was compared with chance."""
    wins: int
    """Prompts that the candidate ranks better."""
    losses: int
    p_value: float
    significance: float
    """The greatest p-value that is accepted."""

    @property
    def reason(self) -> str:
        """The verdict in words."""
        rival = f"version {self.baseline}" if self.baseline is not None else "chance"
        found = f"it ranks {self.wins} held-out prompts better than {rival} and {self.losses} worse"
        rule = f"p <= {self.significance:g}"
        verdict = f"is accepted at {rule}" if self.accepted else f"needs {rule} to be accepted"
        return f"{found}: p = {self.p_value:.4g}, {verdict}"


def compare(
    candidate: Sequence[ScoredPair],
    baseline: Sequence[ScoredPair] | None,
    *,
    baseline_version: int | None,
    significance: float,
) -> GateVerdict:
    """Compare two models' scores of the same pairs; without a baseline, a model with chance.

    Raises:
        ValueError: the two do not cover the same prompts.
    """
    shares = _shares(candidate)
    rivals = _shares(baseline) if baseline is not None else dict.fromkeys(shares, CHANCE)
    if shares.keys() != rivals.keys():
        raise ValueError(f"both models must score the same prompts, got {len(shares)} and {len(rivals)}")
    wins = sum(share > rivals[prompt] for prompt, share in shares.items())
    losses = sum(share < rivals[prompt] for prompt, share in shares.items())
    p_value = sign_test(wins, losses)
    return GateVerdict(p_value <= significance, baseline_version, wins, losses, p_value, significance)


def sign_test(wins: int, losses: int) -> float:
    """P(X >= wins) for X ~ Binomial(wins + losses, 1/2), exactly; 1.0 without a vote."""
    num_votes = wins + losses
    term = total = math.comb(num_votes, wins)
    for successes in range(wins + 1, num_votes + 1):
        term = term * (num_votes - successes + 1) // successes
        total += term
    return total / (1 << num_votes)


def _shares(pairs: Sequence[ScoredPair]) -> dict[str, float]:
    return {prompt: share_right(group) for prompt, group in by_prompt(pairs).items()}
