"""What tuning costs the engine's steps, kept from pulse to pulse: training at the present pace, and each rollout.

pulse ─► steps over what steps of their size take without training ─► Slowdown, of all steps and of those with prompts
      └► what one more request adds to a step                      ─► share of a step of the live requests alone
"""

import math

from service.slo import Quantity
from service.slowdown import Slowdown
from trainer.matched_steps import Matched
from trainer.pace import Pulse

_RESTS_S = 2.0
"""A longer time without a micro-batch is no rest between two: the run samples or scores, and training costs nothing."""
_LEAST_COST = 0.001
"""Of a rollout, as a share of a step: where steps of other sizes have not been seen, the fit says 0."""


class StepCosts:
    """Of one engine."""

    def __init__(self) -> None:
        self.steps, self.prompt_steps = Slowdown(), Slowdown()
        self.of_rollout: float | None = None
        """What a rollout adds to a step of the live requests alone, as a share of it; None while it is not known."""
        self._trained_s = -math.inf

    @property
    def of_training(self) -> dict[Quantity, Slowdown]:
        """Steps with prompts stand for the time to the first token."""
        return {Quantity.INTER_TOKEN: self.steps, Quantity.TTFT: self.prompt_steps}

    def trains(self, now_s: float) -> bool:
        """Whether training runs, or rests between two micro-batches."""
        return now_s - self._trained_s <= _RESTS_S

    def restart(self, since_s: float) -> None:
        """Another pace from then on, of which nothing is known, unless it is the present one."""
        for slowdown in (self.steps, self.prompt_steps):
            if slowdown.since_s != since_s:
                slowdown.restart(since_s)

    def note(self, pulse: Pulse, now_s: float, *, num_live: int, num_rollouts: int, paused: bool) -> None:
        """Take in one pulse. It tells about the pace when live requests ran beside training, or when training is
        paused."""
        if pulse.train_share > 0:
            self._trained_s = now_s
        seen = pulse.matched
        if seen.expected_s <= 0:
            return
        self.of_rollout = _rollout_cost(seen, num_rollouts)
        if num_live and (paused or self.trains(now_s)):
            self.steps.add(seen.steps_s / seen.expected_s, seen.error)
            if seen.prompt_expected_s > 0:
                self.prompt_steps.add(seen.prompt_steps_s / seen.prompt_expected_s, seen.prompt_error)


def _rollout_cost(seen: Matched, num_rollouts: int) -> float:
    alone_s = max(seen.expected_s / seen.num_steps - num_rollouts * seen.request_s, seen.request_s)
    return max(seen.request_s / alone_s, _LEAST_COST)
