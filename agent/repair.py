"""What was done about a reply in a wrong language: the record that goes with it to the metrics and the journal.

    sibling    another sample of the same request passed, and is served instead: no generation
    sentence   the wrong sentences were written again, one by one, and put in their places
    retry      the whole reply was sampled once more from the same prompt

A reply of a sibling or a retry is a sample of the policy like any other. That a retry exists only where the first
sample failed leaves out pairs in which both pass, and of the pairs that differ one half, whose mirror image is there:
tuning sees such prompts more often, and is not turned.

A text with sentences put in is no sample: nobody sampled it, and no completion of its episode was served as it is. Such
an episode teaches by its prompt alone.
"""

from dataclasses import dataclass
from enum import StrEnum


class RepairMode(StrEnum):
    """What may be tried; `agent.repair` in the configuration."""

    OFF = "off"
    SENTENCE = "sentence"
    RETRY = "retry"
    AUTO = "auto"


class RepairMethod(StrEnum):
    """How a reply was repaired."""

    SIBLING = "sibling"
    SENTENCE = "sentence"
    RETRY = "retry"


class RepairOutcome(StrEnum):
    """What came of one attempt."""

    REPAIRED = "repaired"
    """The reply keeps the contract now."""
    BETTER = "better"
    """More of it is in the wanted language, and it is served, but it still breaks the contract."""
    NO_BETTER = "no_better"
    """The reply stayed as it was."""
    TIMED_OUT = "timed_out"
    """There was not enough time, or none to begin with."""
    ERROR = "error"
    """The engine failed, or refused."""


@dataclass(frozen=True, slots=True)
class RepairAttempt:
    """One attempt."""

    method: RepairMethod
    outcome: RepairOutcome


@dataclass(frozen=True, slots=True)
class Repair:
    """The attempts at one reply, in order."""

    attempts: tuple[RepairAttempt, ...]
    text: str | None = None
    """What was served, when sentences were put into a completion's text; None when a completion was served as it is."""
    num_tokens: int = 0
    """Tokens sampled for sentences, which are in no completion of the episode."""

    @property
    def sampled_once_more(self) -> bool:
        """True when the episode's last completion is that of a retry, whether it was served or not."""
        ended = (RepairOutcome.REPAIRED, RepairOutcome.BETTER, RepairOutcome.NO_BETTER)
        return any(item.method is RepairMethod.RETRY and item.outcome in ended for item in self.attempts)
